//! `${NAME}` in `exec`, in `env` and in exec checks: found when a file is checked, replaced when a run starts.
//!
//! `$${` stands for a literal `${`, so that a shell's own variables can be written. A `$` before anything else
//! is itself.

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing is known under this name.
    #[error("`${{{0}}}` names nothing that is known here")]
    Unknown(String),
    /// A `${` has no `}` after it.
    #[error("`${{` has no `}}` after it")]
    Unclosed,
}

/// Replaces every `${NAME}` by what `lookup` gives for `NAME`.
///
/// # Errors
/// [`TemplateError`] for the first name that `lookup` does not know, or a `${` without its end.
pub fn expand(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> Result<String, TemplateError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let escaped = rest[..start].ends_with('$');
        expanded.push_str(&rest[..start - usize::from(escaped)]);
        let after = &rest[start + 2..];
        if escaped {
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let end = after.find('}').ok_or(TemplateError::Unclosed)?;
        let name = &after[..end];
        expanded.push_str(&lookup(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))?);
        rest = &after[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_escapes_kept() {
        let lookup = |name: &str| (name == "PORT_HTTP").then(|| "8080".to_owned());
        for (text, expect) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("--port=${PORT_HTTP}!", Ok("--port=8080!")),
            ("${PORT_HTTP}${PORT_HTTP}", Ok("80808080")),
            ("echo $${HOME} $HOME $", Ok("echo ${HOME} $HOME $")),
            ("${NOPE}", Err(TemplateError::Unknown("NOPE".to_owned()))),
            ("${}", Err(TemplateError::Unknown(String::new()))),
            ("${PORT_HTTP", Err(TemplateError::Unclosed)),
        ] {
            assert_eq!(expand(text, lookup), expect.map(str::to_owned), "{text}");
        }
    }
}
