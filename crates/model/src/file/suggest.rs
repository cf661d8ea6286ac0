//! "Did you mean": the nearest of the words that would have been right.

/// Words further away than this many edits (or a third of the word) are not offered.
const EDITS_MAX: usize = 3;
/// So much of a word is enough to know what it was the beginning of.
const BEGINNING_MIN: usize = 4;
/// A longer word is nobody's slip of the finger, and comparing it would cost by its length.
const WORD_MAX: usize = 64;

/// The candidate that `word` was most likely meant to be, if any is near enough.
pub(super) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let limit = EDITS_MAX.min(word.chars().count().div_ceil(3));
    let plain = fold(word);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let near = candidates
        .iter()
        .map(|candidate| (edits(&plain, &fold(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance);
    let mut begun = candidates.iter().filter(|candidate| fold(candidate).starts_with(&plain));
    match (near, begun.next(), begun.next()) {
        (_, Some(only), None) if plain.len() >= BEGINNING_MIN => Some(only),
        (near, _, _) => near.map(|(_, candidate)| candidate),
    }
}

/// Case and the three ways to join words are no difference worth an edit.
fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Edits from one word to the other, a swap of neighbours counted as one (optimal string alignment distance).
fn edits(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[from.len()][to.len()]
}

/// `a`, `b` or `c`, for people.
pub(super) fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_offered_and_far_ones_are_not() {
        let words = ["replicas", "require", "roll-back", "pause", "SIGTERM"];
        for (word, expect) in [
            ("replcias", Some("replicas")),
            ("replica", Some("replicas")),
            ("requires", Some("require")),
            ("rollback", Some("roll-back")),
            ("sigterm", Some("SIGTERM")),
            ("TERM", None),
            ("repl", Some("replicas")),
            ("volumes", None),
            ("", None),
        ] {
            assert_eq!(closest(word, words), expect, "{word}");
        }
    }
}
