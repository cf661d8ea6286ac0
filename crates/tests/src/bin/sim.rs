//! Runs seeds of the simulated world: `cargo run --release -p baton-tests --bin sim -- --seeds 1000`.
//!
//! Exit code 0: no invariant broke. 1: one did; the seed and how to replay it are printed.

use baton_tests::world::{Mutation, Options, Verdict, run};
use clap::Parser;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Runs seeds of the simulated world and judges them by the invariants of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed; with --trace, or without --seeds, the only one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens in the seed.
    #[arg(long)]
    trace: bool,
    /// Break one guard; the run is expected to find it.
    #[arg(long)]
    mutate: Option<Mutation>,
    /// Threads; each runs whole seeds.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(seed), true) = (arguments.seed, arguments.trace || arguments.seeds == 1) {
        return one(Options { seed, trace: arguments.trace, mutation: arguments.mutate });
    }
    many(arguments)
}

fn one(options: Options) -> ExitCode {
    let verdict = run(options);
    println!(
        "seed {}: {} happenings, {} decisions, trace hash {:016x}",
        verdict.seed, verdict.happenings, verdict.decisions, verdict.hash
    );
    match verdict.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: Arguments) -> ExitCode {
    let first = arguments.seed.unwrap_or(0);
    let next = AtomicU64::new(first);
    let found = AtomicBool::new(false);
    let began = Instant::now();
    let worker = || {
        let mut verdicts = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + arguments.seeds || (found.load(Ordering::Relaxed) && !arguments.keep_going) {
                return verdicts;
            }
            let verdict = run(Options { seed, trace: false, mutation: arguments.mutate });
            found.fetch_or(verdict.violation.is_some(), Ordering::Relaxed);
            verdicts.push(verdict);
        }
    };
    let mut verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.threads.max(1)).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no seed panics")).collect()
    });
    verdicts.sort_by_key(|verdict| verdict.seed);
    report(arguments, &verdicts, began.elapsed().as_secs_f64())
}

fn report(arguments: Arguments, verdicts: &[Verdict], seconds: f64) -> ExitCode {
    let decisions: u64 = verdicts.iter().map(|verdict| verdict.decisions).sum();
    let happenings: u64 = verdicts.iter().map(|verdict| verdict.happenings).sum();
    let seeds = verdicts.len();
    let mut failed = 0;
    for verdict in verdicts {
        let Some(violation) = &verdict.violation else { continue };
        failed += 1;
        let mutate = arguments.mutate.map(|mutation| format!(" --mutate {mutation}")).unwrap_or_default();
        println!("seed {} FAILED: {violation}", verdict.seed);
        println!(
            "  replay: cargo run --release -p baton-tests --bin sim -- --seed {} --trace{mutate}",
            verdict.seed
        );
    }
    println!(
        "{seeds} seeds in {seconds:.1} s ({:.1} seeds/s), {happenings} happenings, {decisions} decisions, {failed} failed",
        seeds as f64 / seconds
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
