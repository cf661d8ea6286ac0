//! How a page is told of in docs/metrics.md: for the tests that hold the one against the other.

/// The rows of a page as the tables of docs/metrics.md begin them: name, type, labels.
#[must_use]
pub fn rows(page: &str) -> Vec<String> {
    let metrics = page.split("# TYPE ").skip(1);
    metrics.filter_map(|metric| row(metric.split_once('\n')?)).collect()
}

fn row((head, samples): (&str, &str)) -> Option<String> {
    let (name, kind) = head.split_once(' ')?;
    let sample = samples.lines().find(|line| !line.starts_with('#'))?;
    let labels: Vec<&str> = match sample.split_once('{') {
        Some((_, labels)) => {
            let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
            names.filter(|name| *name != "le").collect()
        }
        None => vec![],
    };
    let suffix = match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    Some(format!("| `{name}{suffix}` | {kind} | {} |", labels.join(", ")))
}

/// The rows of a page that `docs` does not have.
#[must_use]
pub fn missing(page: &str, docs: &str) -> Vec<String> {
    rows(page).into_iter().filter(|row| !docs.contains(row.as_str())).collect()
}
