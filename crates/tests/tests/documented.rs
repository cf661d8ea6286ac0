//! The service files of the documentation, exactly as printed, through the command that a reader types.

use baton_tests::harness::baton_program;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Rolling, canary, blue-green, A/B, dark.
const STRATEGIES: usize = 5;

/// The value of a `field = "value"` line.
fn value<'a>(file: &'a str, field: &str) -> &'a str {
    let line = file.lines().find_map(|line| line.strip_prefix(&format!("{field} = \"")));
    line.and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("no {field} in\n{file}"))
}

/// What the file deploys, so that there is something to pack.
fn build(folder: &Path, file: &str) {
    let program = folder.join(value(file, "artifact"));
    std::fs::create_dir_all(program.parent().expect("a folder")).expect("a folder can be made");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 3600\n").expect("a file can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn each_strategys_service_file_is_right_as_printed() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/strategies");
    let mut strategies = 0;
    for entry in std::fs::read_dir(pages).expect("the pages are there").flatten() {
        let page = std::fs::read_to_string(entry.path()).expect("a page is text");
        let files: Vec<&str> =
            page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        strategies += usize::from(!files.is_empty());
        for file in files {
            let folder = TempDir::with_prefix("baton-documented-").expect("a temporary folder");
            build(folder.path(), file);
            std::fs::write(folder.path().join("service.toml"), file).expect("a file can be written");
            let ran = Command::new(baton_program())
                .args(["validate", "service.toml"])
                .current_dir(folder.path())
                .env("BATON_CONFIG_DIR", folder.path())
                .output()
                .expect("baton runs");
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{}: {said}\n{file}", entry.path().display());
        }
    }
    assert_eq!(strategies, STRATEGIES, "each strategy has a page with its file");
}
