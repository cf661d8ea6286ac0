//! A strict reader of the text form of OpenMetrics 1.0, as far as our pages use it: what Prometheus would take with a
//! shrug is an error here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Port of the metrics of every role of `baton dev`.
const PORT: u16 = 9464;
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// One metric: its type, and its samples by name and labels.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Values by the sample's full name and labels, as written.
    pub samples: BTreeMap<String, f64>,
}

/// The families of a page, by name.
///
/// # Errors
/// The first line that is not as the specification has it, and why.
pub fn parse(page: &str) -> Result<BTreeMap<String, Family>, String> {
    let Some(body) = page.strip_suffix("# EOF\n") else {
        return Err("the page does not end with # EOF".into());
    };
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut helped) = (String::new(), BTreeSet::new());
    for line in body.lines() {
        let at = |why: &str| format!("{why}: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (Some(what), Some(name), Some(rest)) = (what, name, rest) else {
                return Err(at("half a comment"));
            };
            match what {
                "HELP" if !helped.insert(name.to_owned()) => return Err(at("helped twice")),
                "HELP" => {}
                "TYPE" => {
                    if !is_name(name) || !["counter", "gauge", "histogram", "info"].contains(&rest) {
                        return Err(at("no such metric"));
                    }
                    if families
                        .insert(name.into(), Family { kind: rest.into(), ..Family::default() })
                        .is_some()
                    {
                        return Err(at("declared twice, or not in one place"));
                    }
                    name.clone_into(&mut current);
                }
                _ => return Err(at("an unknown comment")),
            }
            continue;
        }
        let family = families.get_mut(&current).ok_or_else(|| at("a sample before its type"))?;
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| at("no value"))?;
        let name = check_series(series).map_err(|why| at(&why))?;
        let suffix = name.strip_prefix(current.as_str()).ok_or_else(|| at("a sample of another metric"))?;
        let fits = match family.kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            "info" => suffix == "_info",
            _ => ["_bucket", "_sum", "_count"].contains(&suffix),
        };
        if !fits {
            return Err(at("a name that its type does not have"));
        }
        let value: f64 = value.parse().map_err(|_| at("no number"))?;
        if family.kind != "gauge" && (value.is_nan() || value < 0.0) {
            return Err(at("a count below zero"));
        }
        if family.samples.insert(series.to_owned(), value).is_some() {
            return Err(at("told twice"));
        }
    }
    families.iter().try_for_each(|(name, family)| check_buckets(name, family))?;
    Ok(families)
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|it| it.is_ascii_lowercase())
        && letters.all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
}

/// The name of a series whose labels are well formed.
fn check_series(series: &str) -> Result<&str, String> {
    let Some((name, labels)) = series.split_once('{') else { return Ok(series) };
    let mut rest = labels.strip_suffix('}').ok_or("labels without an end")?;
    let mut seen = BTreeSet::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(label) || !seen.insert(label) {
            return Err(format!("`{label}` is no label, or there twice"));
        }
        let mut escaped = false;
        let end = value.find(|it: char| {
            let ends = it == '"' && !escaped;
            escaped = it == '\\' && !escaped;
            ends
        });
        rest = &value[end.ok_or("a value without an end")? + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            None if rest.is_empty() => rest,
            Some(_) | None => return Err("labels that are not parted by one comma".into()),
        };
    }
    Ok(name)
}

/// Buckets only grow, and the last one has all.
fn check_buckets(name: &str, family: &Family) -> Result<(), String> {
    if family.kind != "histogram" {
        return Ok(());
    }
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, count) in &family.samples {
        let Some((before, rest)) = sample.split_once("le=\"") else { continue };
        let (end, after) = rest.split_once('"').ok_or("a bucket without an end")?;
        let end = if end == "+Inf" {
            f64::INFINITY
        } else {
            end.parse().map_err(|_| format!("{end} is no bucket"))?
        };
        let labels = format!("{before}{}", after.trim_start_matches(','));
        series.entry(labels).or_default().push((end, *count));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        let last = buckets.last().copied().unwrap_or_default();
        let count = labels.replace("_bucket{", "_count{").replace("_count{}", "_count");
        if !grows || last.0.is_finite() || family.samples.get(&count) != Some(&last.1) {
            return Err(format!("{name}: the buckets of {labels} contradict one another: {buckets:?}"));
        }
    }
    Ok(())
}

/// The page of the role of `baton dev` at an address, with its head checked.
///
/// # Errors
/// What the network says.
///
/// # Panics
/// If the answer is not such a page.
pub fn fetch(ip: &str) -> std::io::Result<String> {
    fetch_at(&format!("{ip}:{PORT}"))
}

/// The page at an address with its port.
///
/// # Errors
/// What the network says.
///
/// # Panics
/// If the answer is not such a page.
pub fn fetch_at(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    Ok(page.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_not_as_specified_is_refused() {
        let page = "# HELP a_seconds X.\n# TYPE a_seconds histogram\na_seconds_sum 1.5\na_seconds_count 2\n\
                    a_seconds_bucket{le=\"1.0\"} 1\na_seconds_bucket{le=\"+Inf\"} 2\n# TYPE b counter\nb_total{c=\"d\\\"\"} 1\n# EOF\n";
        let families = parse(page).expect("as specified");
        assert_eq!(families["b"].samples["b_total{c=\"d\\\"\"}"], 1.0);
        for (right, wrong) in [
            ("# EOF\n", ""),
            ("b_total{", "b{"),
            ("b_total{c=\"d\\\"\"} 1", "b_total{c=\"d\\\"\"} -1"),
            ("c=\"d\\\"\"", "c=\"d\\\"\",c=\"e\""),
            ("c=\"d\\\"\"", "c=\"d\\\"\","),
            ("{le=\"+Inf\"} 2", "{le=\"+Inf\"} 3"),
            ("{le=\"1.0\"} 1", "{le=\"1.0\"} 3"),
            ("# TYPE b counter", "# TYPE a_seconds counter"),
            ("# TYPE b counter", "# TYPE b summary"),
        ] {
            assert!(parse(&page.replacen(right, wrong, 1)).is_err(), "{wrong}");
        }
    }
}
