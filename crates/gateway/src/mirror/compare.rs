//! Whether two bodies say the same, but for what the same release says differently each time.

use serde_json::Value;
use std::collections::BTreeMap;

/// Whether `copy` differs from `live`, which it does not equal, in anything that `again`, the live release's second answer,
/// has in common with `live`. Without a second answer, any difference counts.
pub(super) fn differ(live: &[u8], copy: &[u8], again: Option<&[u8]>) -> bool {
    let Some(again) = again else { return true };
    if let (Some(live), Some(copy), Some(again)) = (leaves(live), leaves(copy), leaves(again)) {
        return parts_differ(&live, &copy, &again);
    }
    parts_differ(&lines(live), &lines(copy), &lines(again))
}

/// Compares by place: what the two live answers do not agree on is noise.
fn parts_differ<K: Ord, V: PartialEq>(
    live: &BTreeMap<K, V>,
    copy: &BTreeMap<K, V>,
    again: &BTreeMap<K, V>,
) -> bool {
    let places = live.keys().chain(copy.keys());
    places.into_iter().any(|place| live.get(place) == again.get(place) && live.get(place) != copy.get(place))
}

fn lines(body: &[u8]) -> BTreeMap<usize, &[u8]> {
    body.split(|byte| *byte == b'\n').enumerate().collect()
}

/// The values of a JSON document by their paths; `None` where it is not one.
fn leaves(body: &[u8]) -> Option<BTreeMap<String, String>> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), document)];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(fields) => {
                found.insert(path.clone(), "{}".to_owned());
                open.extend(fields.into_iter().map(|(name, value)| (format!("{path}/{name}"), value)));
            }
            Value::Array(items) => {
                found.insert(path.clone(), "[]".to_owned());
                open.extend(items.into_iter().enumerate().map(|(at, value)| (format!("{path}/{at}"), value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                found.insert(path, value.to_string());
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_what_the_same_release_says_differently() {
        let json = |at: u32, name: &str| format!("{{\"at\":{at},\"user\":{{\"name\":\"{name}\"}}}}");
        let text = |at: u32, name: &str| format!("<p>{at}</p>\n<p>{name}</p>\n");
        for make in [json as fn(u32, &str) -> String, text] {
            let (live, again) = (make(1, "ada"), make(2, "ada"));
            let check = |copy: String| differ(live.as_bytes(), copy.as_bytes(), Some(again.as_bytes()));
            assert!(!check(make(1, "ada")), "the same");
            assert!(!check(make(3, "ada")), "only what is noise");
            assert!(check(make(1, "bob")), "what is not noise");
        }
    }

    #[test]
    fn what_is_missing_or_new_is_a_difference() {
        let (live, again) = (b"{\"a\":1,\"b\":2}", b"{\"a\":1,\"b\":3}");
        assert!(differ(live, b"{\"b\":2}", Some(again)));
        assert!(differ(live, b"{\"a\":1,\"b\":2,\"c\":1}", Some(again)));
        assert!(differ(live, b"{\"a\":{},\"b\":2}", Some(again)));
        assert!(!differ(live, b"{\"b\":9,\"a\":1}", Some(again)), "the order of fields says nothing");
    }

    #[test]
    fn without_a_second_answer_any_difference_counts() {
        assert!(differ(b"a", b"b", None));
    }
}
