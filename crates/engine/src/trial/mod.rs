//! Two releases compared: from what gateways counted to what may be concluded. Nothing is decided here: an operator is told.

mod statistics;

use baton_model::evidence::sketch::STANDARD_ERROR;
use baton_model::evidence::trial::{ArmCounts, TrialObserved};
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{Answer, ArmReport, Comparison, Estimate, LatencyEffect, Percent, SampleRatio};
use baton_model::route::{Between, Trial, Weight};
use baton_model::time::UnixMs;
use statistics::{chance_of_chi_squared, difference, millionths, quantile, share};

/// The quantiles that are compared, in percent.
const QUANTILES: [u32; 3] = [50, 90, 99];
/// A sample ratio that is less likely than this where nothing is wrong is taken as a sign that something is (Fabijan and
/// others, "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", 2019, and common practice).
const MISMATCH_BELOW: f64 = 0.001;
/// With fewer clients expected in one of the two groups the chi-squared test says nothing: five is what textbooks ask for.
const CLIENTS_MIN: f64 = 5.0;

/// Compares by what was counted; nothing counted is a comparison too, that concludes nothing.
pub(crate) fn compare(
    trial: &Trial,
    observed: Option<&TrialObserved>,
    since: UnixMs,
    now: UnixMs,
) -> Comparison {
    let nothing = TrialObserved::default();
    let seen = observed.filter(|seen| seen.rollout == trial.rollout).unwrap_or(&nothing);
    let counts = &seen.counts;
    let control = arm(trial.control, seen.control_clients, &counts.control);
    let treatment = arm(trial.treatment, seen.treatment_clients, &counts.treatment);
    let errors = control.error_share.zip(treatment.error_share).map(|(old, new)| difference(old, new));
    let (sample_ratio, copies) = match &trial.between {
        Between::Clients { share, .. } => {
            (Some(sample_ratio(*share, seen.control_clients, seen.treatment_clients)), None)
        }
        Between::Copies => (None, Some(counts.copies)),
    };
    let mut comparison = Comparison {
        between: trial.between.clone(),
        since,
        until: now,
        sources: seen.sources,
        control,
        treatment,
        errors,
        latency: latency(&counts.control, &counts.treatment),
        sample_ratio,
        copies,
        conclusion: String::new(),
    };
    comparison.conclusion = conclude(&comparison);
    comparison
}

fn arm(release: ReleaseNumber, clients: u64, counts: &ArmCounts) -> ArmReport {
    let at = |percent| {
        let value = quantile(&counts.latency, percent).map_or(0, |estimate| estimate.value);
        u64::try_from(value).unwrap_or_default()
    };
    ArmReport {
        release,
        // The number of clients is an estimate, and whoever reads it knows that each has made a request. The ratio of the groups
        // is that of the estimates themselves.
        clients: clients.min(counts.requests()),
        requests: counts.requests(),
        errors: counts.errors(),
        error_share: share(counts.errors(), counts.requests()),
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
    }
}

fn latency(control: &ArmCounts, treatment: &ArmCounts) -> Vec<LatencyEffect> {
    let effect = |percent| {
        let (old, new) = (quantile(&control.latency, percent)?, quantile(&treatment.latency, percent)?);
        Some(LatencyEffect { percent, slower_us: difference(old, new) })
    };
    QUANTILES.into_iter().filter_map(effect).collect()
}

/// Pearson's chi-squared test with one degree of freedom of the clients against the split. The numbers of clients are
/// estimates: their error, independent in the two groups, is added to the variance that chance alone has.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn sample_ratio(expected: Weight, control_clients: u64, treatment_clients: u64) -> SampleRatio {
    let new = f64::from(expected.0) / f64::from(Weight::ALL.0);
    let old = 1.0 - new;
    let (of_old, of_new) = (control_clients as f64, treatment_clients as f64);
    let whole = of_old + of_new;
    let observed = if whole > 0.0 { millionths(of_new / whole) } else { 0 };
    let enough = whole * new >= CLIENTS_MIN && whole * old >= CLIENTS_MIN;
    // Zero where the groups are as the split says; its variance under that assumption.
    let off = of_new * old - of_old * new;
    let by_chance = whole * new * old;
    let by_estimate = STANDARD_ERROR * (of_new * old).hypot(of_old * new);
    let chance =
        if enough { chance_of_chi_squared(off * off / (by_chance + by_estimate * by_estimate)) } else { 1.0 };
    let answer = match enough {
        true if chance < MISMATCH_BELOW => Answer::Fail,
        true => Answer::Pass,
        false => Answer::Inconclusive,
    };
    SampleRatio { expected: millionths(new), observed, chance: millionths(chance), answer }
}

/// One or two sentences for whoever has to decide.
fn conclude(it: &Comparison) -> String {
    if let Some(ratio) = it.sample_ratio.filter(|ratio| ratio.answer == Answer::Fail) {
        return format!(
            "sample ratio mismatch: {} of the clients got the new release and {} should have, so this evidence is not to \
             be trusted: look for what keeps clients of one release away (crashes, redirects, caches, a key that changes)",
            Percent(ratio.observed),
            Percent(ratio.expected)
        );
    }
    if let Some(copies) = it.copies.filter(|copies| copies.compared > 0) {
        let differing = format!("{} of {} compared answers differ", copies.differing(), copies.compared);
        return format!("{differing}; {}", effects(it));
    }
    if it.control.requests == 0 || it.treatment.requests == 0 {
        return "not enough evidence: one of the two releases has had no requests".to_owned();
    }
    let thin = it.sample_ratio.is_some_and(|ratio| ratio.answer == Answer::Inconclusive);
    let few = if thin { "too few clients to check the sample ratio; " } else { "" };
    format!("{few}{}", effects(it))
}

fn effects(it: &Comparison) -> String {
    let errors = match it.errors {
        Some(errors) if errors.is_above_zero() => "the new release has more errors",
        Some(errors) if errors.is_below_zero() => "the new release has fewer errors",
        Some(_) => "no difference in errors is shown",
        None => "nothing is known of errors",
    };
    if it.latency.is_empty() {
        return format!("{errors}; latency cannot be compared, since one of the two never answered");
    }
    let of = |slower: fn(&Estimate) -> bool| {
        let all = it.latency.iter().filter(|effect| slower(&effect.slower_us));
        all.map(|effect| format!("p{}", effect.percent)).collect::<Vec<_>>().join(", ")
    };
    let latency = match (of(Estimate::is_above_zero), of(Estimate::is_below_zero)) {
        (slower, faster) if slower.is_empty() && faster.is_empty() => "nor in latency".to_owned(),
        (slower, faster) if faster.is_empty() => format!("it is slower at {slower}"),
        (slower, faster) if slower.is_empty() => format!("it is faster at {faster}"),
        (slower, faster) => format!("it is slower at {slower} and faster at {faster}"),
    };
    match latency.as_str() {
        "nor in latency" if it.errors.is_none_or(|it| it.is_above_zero() || it.is_below_zero()) => {
            format!("{errors}; no difference in latency is shown")
        }
        _ if latency.starts_with("nor") => format!("{errors}, {latency}"),
        _ => format!("{errors}; {latency}"),
    }
}

#[cfg(test)]
mod tests;
