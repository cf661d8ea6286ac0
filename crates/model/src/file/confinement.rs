//! Reads what a workload may use and touch: `[limits]` and `[sandbox]`.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::suggest::closest;
use super::value::{self, shorten};
use crate::confinement::{Capability, Limits, Sandbox};
use std::collections::BTreeSet;
use toml::de::DeValue;

pub(super) const LIMITS: &[&str] =
    &["memory_high", "memory_max", "cpu", "cpu_weight", "pids_max", "io_weight", "open_files", "core"];
pub(super) const SANDBOX: &[&str] = &[
    "user",
    "group",
    "capabilities",
    "no_new_privileges",
    "private_tmp",
    "read_only",
    "hidden",
    "umask",
    "working_directory",
    "nice",
];

pub(super) fn limits(reader: &mut Reader, top: &Section<'_, '_>) -> Limits {
    let section = reader.section(top, "limits", Fields::Only(LIMITS));
    Limits {
        memory_high: reader.field(&section, "memory_high", value::size),
        memory_max: reader.field(&section, "memory_max", value::size),
        cpu_percent: reader.field(&section, "cpu", processors),
        cpu_weight: reader.field(&section, "cpu_weight", value::number),
        pids_max: reader.field(&section, "pids_max", value::number),
        io_weight: reader.field(&section, "io_weight", value::number),
        open_files: reader.field(&section, "open_files", value::number).map(u64::from),
        core_bytes: reader.field(&section, "core", size_or_none),
    }
}

pub(super) fn sandbox(reader: &mut Reader, top: &Section<'_, '_>) -> Sandbox {
    let section = reader.section(top, "sandbox", Fields::Only(SANDBOX));
    Sandbox {
        user: reader.field(&section, "user", account),
        group: reader.field(&section, "group", account),
        capabilities: set(reader, &section, "capabilities", "[\"CAP_NET_BIND_SERVICE\"]", capability),
        no_new_privileges: reader.field(&section, "no_new_privileges", value::flag).unwrap_or(false),
        private_tmp: reader.field(&section, "private_tmp", value::flag).unwrap_or(false),
        read_only: set(reader, &section, "read_only", "[\"/etc\"]", value::text).unwrap_or_default(),
        hidden: set(reader, &section, "hidden", "[\"/root\"]", value::text).unwrap_or_default(),
        umask: reader.field(&section, "umask", umask),
        working_directory: reader.field(&section, "working_directory", value::text),
        nice: reader.field(&section, "nice", nice),
    }
}

/// A list in which each element counts once, however often it is written.
fn set<T: Ord>(
    reader: &mut Reader,
    section: &Section<'_, '_>,
    field: &str,
    example: &str,
    read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
) -> Option<BTreeSet<T>> {
    let not_a_list = |written: &DeValue<'_>| {
        let what = format!("must be a list, not {}", type_name(written));
        let help = written.as_str().map_or_else(
            || format!("write `{field} = {example}`"),
            |text| format!("write `{field} = [\"{}\"]`", shorten(text)),
        );
        Fault::new(what, help)
    };
    Some(reader.list(section, field, not_a_list, read)?.into_iter().collect())
}

/// A share of one processor, such as `"150%"`.
pub(super) fn processors(written: &DeValue<'_>) -> Result<u32, Fault> {
    const FORMS: &str = "write a whole percentage of one processor: \"50%\" is half of one, \"200%\" is two";
    match written {
        DeValue::String(text) => {
            let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            if let Some(percent) = digits.and_then(|digits| digits.parse().ok()) {
                return Ok(percent);
            }
            let help = match text.trim().trim_end_matches('%').trim().parse::<u32>() {
                Ok(percent) => format!("write \"{percent}%\", in percent of one processor"),
                Err(_) => FORMS.to_owned(),
            };
            Err(Fault::new(format!("is `{}`, which is not a share of a processor", shorten(text)), help))
        }
        DeValue::Integer(number) => {
            let help = match number.as_str().parse::<u32>().ok().and_then(|n| n.checked_mul(100)) {
                Some(percent) => {
                    format!("write \"{percent}%\" for {number} processors, \"{number}%\" for a share of one")
                }
                None => FORMS.to_owned(),
            };
            Err(Fault::new("has no unit", help))
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(Fault::new(format!("must be a share, not {}", type_name(written)), FORMS)),
    }
}

/// A size that may be none at all.
fn size_or_none(written: &DeValue<'_>) -> Result<u64, Fault> {
    match written {
        DeValue::String(text) if &**text == "0" => Ok(0),
        DeValue::Integer(number) if number.as_str() == "0" => {
            Err(Fault::new("must be a size, which is text", "write \"0\" for none"))
        }
        _ => value::size(written),
    }
}

/// A user or group: its name, or its number with or without quotes.
fn account(written: &DeValue<'_>) -> Result<String, Fault> {
    match written {
        DeValue::Integer(_) => value::number(written).map(|number| number.to_string()),
        _ => value::text(written),
    }
}

fn capability(written: &DeValue<'_>) -> Result<Capability, Fault> {
    let name = value::text(written)?;
    name.parse().map_err(|_| {
        let whole =
            if name.to_ascii_uppercase().starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
        let help = match closest(&whole, Capability::NAMES) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "write names as capabilities(7) lists them, such as \"CAP_NET_BIND_SERVICE\"".to_owned(),
        };
        Fault::new(format!("is `{}`, which is not a capability", shorten(&name)), help)
    })
}

/// Three octal digits, such as `"027"`.
fn umask(written: &DeValue<'_>) -> Result<u32, Fault> {
    const FORMS: &str = "write it in octal and in quotes: \"027\"";
    match written {
        DeValue::String(text) => {
            let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
            octal.filter(|mask| *mask <= 0o777 && !text.starts_with('+')).ok_or_else(|| {
                Fault::new(format!("is `{}`, which is not a file mode creation mask", shorten(text)), FORMS)
            })
        }
        DeValue::Integer(number) => {
            // The digits are octal whatever TOML took them for: nobody writes a mask in decimal.
            let digits = number.as_str();
            let help = if digits.len() <= 3 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
                format!("write it in octal and in quotes: \"{digits:0>3}\"")
            } else {
                FORMS.to_owned()
            };
            Err(Fault::new("must be text, not a number", help))
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(Fault::new(format!("must be text, not {}", type_name(written)), FORMS)),
    }
}

/// A whole number that may be negative.
fn nice(written: &DeValue<'_>) -> Result<i32, Fault> {
    const FORMS: &str = "write a whole number from -20 (most favoured) to 19, without quotes";
    match written {
        DeValue::Integer(number) => i32::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| Fault::new("is far too large a number", FORMS)),
        _ => Err(Fault::new(format!("must be a whole number, not {}", type_name(written)), FORMS)),
    }
}
