//! Readers of single values: each takes what the person wrote and gives the value, or says what to write.

use super::problem::{Fault, type_name};
use super::suggest::{closest, one_of};
use crate::spec::{Amount, StopSignal};
use crate::time::Millis;
use toml::de::DeValue;

/// Text in quotes.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Fault> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Err(not("text", value, format!("put it in quotes: \"{number}\""))),
        DeValue::Float(number) => Err(not("text", value, format!("put it in quotes: \"{number}\""))),
        DeValue::Boolean(flag) => Err(not("text", value, format!("put it in quotes: \"{flag}\""))),
        DeValue::Datetime(date) => Err(not("text", value, format!("put it in quotes: \"{date}\""))),
        DeValue::Array(_) | DeValue::Table(_) => {
            Err(not("text", value, "write one text in quotes".to_owned()))
        }
    }
}

fn not(wanted: &str, value: &DeValue<'_>, help: String) -> Fault {
    Fault::new(format!("must be {wanted}, not {}", type_name(value)), help)
}

/// A path of this machine: text that is not empty and holds no NUL.
pub(super) fn path(value: &DeValue<'_>) -> Result<String, Fault> {
    let path = text(value)?;
    if path.is_empty() || path.contains('\0') {
        return Err(Fault::new(
            "names no file",
            "write the path of a file, a folder or a tar archive: \"./web\"",
        ));
    }
    Ok(path)
}

/// Text that is one of our identifiers.
pub(super) fn id<T>(
    value: &DeValue<'_>,
    example: &str,
    parse: impl FnOnce(String) -> Result<T, crate::id::IdError>,
) -> Result<T, Fault> {
    let written = text(value)?;
    parse(written.clone()).map_err(|_| {
        Fault::new(
            format!("is `{}`, which is not a valid name", shorten(&written)),
            format!("use 1 to 63 lower-case letters, digits and dashes, starting and ending with a letter or digit: \"{example}\""),
        )
    })
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Fault> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        DeValue::String(text) if matches!(&**text, "true" | "false") => {
            Err(not("true or false", value, format!("write it without quotes: {text}")))
        }
        _ => Err(not("true or false", value, "write true or false, without quotes".to_owned())),
    }
}

/// A whole number that fits `u32`.
pub(super) fn number(value: &DeValue<'_>) -> Result<u32, Fault> {
    match value {
        DeValue::Integer(integer) => {
            let parsed = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
            if parsed < 0 {
                return Err(Fault::new(
                    format!("is {parsed}, and cannot be negative"),
                    "write a whole number, 0 or more",
                ));
            }
            u32::try_from(parsed).map_err(|_| {
                Fault::new("is far too large a number", format!("write a number of at most {}", u32::MAX))
            })
        }
        DeValue::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(not("a number", value, format!("write it without quotes: {}", shorten(text))))
        }
        DeValue::Float(_) => Err(not("a whole number", value, "write a whole number, such as 3".to_owned())),
        _ => Err(not("a number", value, "write a whole number without quotes, such as 3".to_owned())),
    }
}

/// A TCP port.
pub(super) fn port(value: &DeValue<'_>) -> Result<u16, Fault> {
    let number = number(value)?;
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
        Fault::new(format!("is {number}, which is not a TCP port"), "write a number from 1 to 65535")
    })
}

/// An HTTP status.
pub(super) fn status(value: &DeValue<'_>) -> Result<u16, Fault> {
    let number = number(value)?;
    u16::try_from(number).map_err(|_| {
        Fault::new(
            format!("is {number}, which is not an HTTP status"),
            "write a number from 100 to 599, such as 200",
        )
    })
}

/// A number, or a share such as `"25%"`.
pub(super) fn amount(value: &DeValue<'_>) -> Result<Amount, Fault> {
    const FORMS: &str = "write a number of instances, such as 2, or a share, such as \"25%\"";
    match value {
        DeValue::Integer(_) => number(value).map(Amount::Number),
        DeValue::String(text) => {
            let digits = text.strip_suffix('%').map(str::trim);
            match digits.and_then(|digits| digits.parse::<u32>().ok()) {
                Some(percent) if text.len() <= 11 && !text.contains([' ', '+']) => {
                    Ok(Amount::Percent(percent))
                }
                Some(percent) => Err(Fault::new(
                    format!("is `{}`, which is not a share", shorten(text)),
                    format!("write \"{percent}%\""),
                )),
                None => Err(amount_fault(text, digits.is_some(), FORMS)),
            }
        }
        DeValue::Float(share) => {
            let percent = share
                .as_str()
                .parse::<f64>()
                .ok()
                .filter(|s| (0.0..=1.0).contains(s))
                .map(|s| (s * 100.0).round());
            let help = percent
                .map_or_else(|| FORMS.to_owned(), |p| format!("write a share as a percentage: \"{p}%\""));
            Err(Fault::new(format!("is the fraction {share}"), help))
        }
        _ => Err(not("a number or a share", value, FORMS.to_owned())),
    }
}

fn amount_fault(text: &str, has_sign: bool, forms: &str) -> Fault {
    if !has_sign && text.parse::<u32>().is_ok() {
        return Fault::new(
            format!("is the text \"{text}\", neither a number nor a share"),
            format!("write {text} for instances, or \"{text}%\" for a share"),
        );
    }
    let help = if has_sign { "write a whole percentage from 0 to 100, such as \"25%\"" } else { forms };
    Fault::new(format!("is `{}`, which is neither a number nor a share", shorten(text)), help)
}

const DURATION_FORMS: &str = "write a whole number and a unit: \"500ms\", \"10s\", \"5m\" or \"1h\"";

/// A length of time, such as `"10s"`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Millis, Fault> {
    match value {
        DeValue::String(text) => Millis::parse(text).map_err(|_| duration_fault(text)),
        DeValue::Integer(number) if number.as_str() == "0" => Err(Fault::new("has no unit", "write \"0s\"")),
        DeValue::Integer(number) => Err(Fault::new(
            "has no unit",
            format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
        )),
        DeValue::Float(seconds) => {
            let millis = seconds.as_str().parse::<f64>().ok().and_then(whole_millis);
            let help =
                millis.map_or_else(|| DURATION_FORMS.to_owned(), |ms| format!("write \"{}\"", Millis(ms)));
            Err(Fault::new(format!("is the fraction {seconds} without a unit"), help))
        }
        _ => Err(not("a duration", value, DURATION_FORMS.to_owned())),
    }
}

/// Says of a text that is no duration what it most likely was meant to be.
fn duration_fault(text: &str) -> Fault {
    let what = format!("is `{}`, which is not a duration", shorten(text));
    if text.trim_start().starts_with('-') {
        return Fault::new(
            format!("is `{}`, and a duration cannot be negative", shorten(text)),
            DURATION_FORMS,
        );
    }
    let compact: String =
        text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let split = compact.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(compact.len());
    let (digits, unit) = compact.split_at(split);
    let scale_ms = match unit {
        "" if !digits.is_empty() && !digits.contains('.') && digits.len() < 10 => {
            return Fault::new(
                format!("is `{digits}`, which has no unit"),
                format!("write \"{digits}s\" or \"{digits}ms\""),
            );
        }
        "ms" | "msec" | "millis" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
        "h" | "hr" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return Fault::new(what, DURATION_FORMS),
    };
    let millis = digits.parse::<f64>().ok().and_then(|n| whole_millis(n * scale_ms / 1000.0));
    Fault::new(
        what,
        millis.map_or_else(|| DURATION_FORMS.to_owned(), |ms| format!("write \"{}\"", Millis(ms))),
    )
}

/// Seconds as whole milliseconds, where that is exact and of a size that people mean.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_millis(seconds: f64) -> Option<u64> {
    let millis = (seconds * 1000.0).round();
    let exact = (millis - seconds * 1000.0).abs() < 1e-6;
    (exact && (0.0..1e12).contains(&millis)).then_some(millis as u64)
}

/// A size in bytes, such as `"10MiB"`.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, Fault> {
    const FORMS: &str = "write a whole number and a unit: \"512KiB\", \"10MiB\" or \"1GiB\"";
    let text = match value {
        DeValue::String(text) => text,
        DeValue::Integer(number) => {
            return Err(Fault::new(
                "has no unit",
                format!("write \"{number}MiB\", or another of KiB, MiB and GiB"),
            ));
        }
        _ => return Err(not("a size", value, FORMS.to_owned())),
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale: u64 = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(size_fault(text, digits, unit, FORMS)),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| Fault::new(format!("is `{}`, which is not a size", shorten(text)), FORMS))
}

fn size_fault(text: &str, digits: &str, unit: &str, forms: &str) -> Fault {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => Some("KiB"),
        "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        _ => None,
    };
    let help = match meant {
        Some(unit) if !digits.is_empty() => format!("write \"{}{unit}\"", shorten(digits)),
        _ => forms.to_owned(),
    };
    Fault::new(format!("is `{}`, which is not a size", shorten(text)), help)
}

/// One of a closed set of words.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&'static str, T)]) -> Result<T, Fault> {
    let names = || words.iter().map(|(name, _)| *name);
    let written = match value {
        DeValue::String(text) => text,
        _ => {
            return Err(Fault::new(
                format!("must be a word, not {}", type_name(value)),
                format!("write {}, in quotes", one_of(names())),
            ));
        }
    };
    if let Some((_, meaning)) = words.iter().find(|(name, _)| name == written) {
        return Ok(*meaning);
    }
    let help = match closest(written, names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write {}", one_of(names())),
    };
    Err(Fault::new(format!("cannot be `{}`", shorten(written)), help))
}

/// The name of a signal that may ask a workload to stop.
pub(super) fn signal(value: &DeValue<'_>) -> Result<StopSignal, Fault> {
    const NUMBERS: [(&str, StopSignal); 7] = [
        ("15", StopSignal::Sigterm),
        ("2", StopSignal::Sigint),
        ("3", StopSignal::Sigquit),
        ("1", StopSignal::Sighup),
        ("10", StopSignal::Sigusr1),
        ("12", StopSignal::Sigusr2),
        ("9", StopSignal::Sigkill),
    ];
    let written = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        _ => String::new(),
    };
    let bare = written.to_ascii_uppercase();
    let by_number = NUMBERS.iter().find(|(number, _)| *number == written).map(|(_, signal)| signal.name());
    let by_short_name = StopSignal::ALL.iter().map(|s| s.name()).find(|name| name[3..] == bare);
    if let Some(name) = by_number.or(by_short_name) {
        return Err(Fault::new(
            format!("cannot be `{written}`"),
            format!("write the signal's whole name: \"{name}\""),
        ));
    }
    if let Some(signal) = StopSignal::ALL.into_iter().find(|signal| signal.name() == written) {
        return Ok(signal);
    }
    // No nearest word here: signals of near names do far-away things.
    let names = one_of(StopSignal::ALL.map(StopSignal::name));
    Err(Fault::new("is not a signal that asks a workload to stop", format!("write {names}, in quotes")))
}

/// The beginning of a text, so that a message stays on a screen.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
