//! Every message survives its way, and nothing else is taken for one.

use super::*;
use baton_model::lifecycle::HookPoint;
use baton_model::observed::{Exit, HookEnd, LogDrops};

fn identity(pid: u32) -> Identity {
    Identity { pid, start: u64::MAX }
}

#[test]
fn requests_round_trip() {
    let requests = [
        Request::Begin { listeners: 32, group: true },
        Request::Hello { cookie: [7; 16] },
        Request::State,
        Request::Acknowledge { seq: u64::MAX },
        Request::Stop { signal: 15, timeout_ms: 30_000 },
        Request::Restart { signal: -1, timeout_ms: u64::MAX },
        Request::Listeners,
        Request::Quit,
        Request::Ready { pid: u32::MAX },
        Request::Reload { number: u64::MAX },
        Request::Signal { signal: 1 },
    ];
    for request in requests {
        assert_eq!(Request::decode(&request.encode(9)), Ok((request, 9)));
    }
}

#[test]
fn messages_round_trip() {
    let notified = Notified { ready: true, reloading: false, stopping: true, status: Note::new(b"serving") };
    let state = State {
        phase: Phase::Stopping,
        boot: [1; 16],
        mark: [2; 16],
        shim: identity(3),
        workload: identity(4),
        restarts: 5,
        crash_loop: true,
        killed: true,
        last_exit: Some(Exit::Exec(2)),
        last_seq: 6,
        acknowledged_seq: 7,
        notified,
        log_drops: LogDrops { lines: 8, bytes: u64::MAX, journal_lines: 9 },
    };
    let ended = Ended {
        seq: 1,
        exit: Exit::Signal(9),
        restarts: 2,
        restart_in_ms: Some(0),
        crash_loop: false,
        stopping: true,
        note: Note::new(&[b'x'; 999]),
        damaged: true,
    };
    let messages = [
        Message::State(state),
        Message::LogDropped(LogDropped { drops: state.log_drops, file_began: true, journal_began: false }),
        Message::Started { pid: 1, restarts: 2 },
        Message::Exited(ended),
        Message::Exited(Ended { restart_in_ms: None, exit: Exit::Code(-1), note: Note::EMPTY, ..ended }),
        Message::Stopped { killed: true },
        Message::Done,
        Message::Listeners { count: 32 },
        Message::Refused(Refusal::Busy),
        Message::Refused(Refusal::Setup { step: SetupStep::Control, errno: 98 }),
        Message::Replaced,
        Message::Notified(notified),
        Message::HookFailed(HookFailed {
            point: HookPoint::AfterStop,
            end: HookEnd::Timeout,
            note: Note::new(b"no disk"),
        }),
        Message::Reloaded { number: 7, end: ReloadEnd::Done },
        Message::Reloaded { number: 7, end: ReloadEnd::Deaf },
        Message::Reloaded { number: 7, end: ReloadEnd::Ended },
        Message::Reloaded { number: 7, end: ReloadEnd::Failed(HookEnd::Signal(9)) },
    ];
    let exits = [
        Exit::CoreDump(11),
        Exit::OutOfMemory,
        Exit::Watchdog,
        Exit::WatchdogTriggered,
        Exit::NotLive,
        Exit::StartDeadline,
        Exit::StopDeadline,
        Exit::BeforeStart(HookEnd::Code(3)),
        Exit::BeforeStart(HookEnd::Timeout),
    ];
    let ends = exits.map(|exit| Message::Exited(Ended { exit, ..ended }));
    for message in messages.into_iter().chain(ends) {
        assert_eq!(Message::decode(&message.encode(3)), Ok((message, 3)));
    }
}

#[test]
fn foreign_bytes_are_refused() {
    let good = Request::Quit.encode(1);
    assert_eq!(Request::decode(&good[..100]), Err(FrameError::Foreign));
    assert_eq!(Request::decode(&[0; FRAME_BYTES]), Err(FrameError::Foreign));
    let mut newer = good;
    newer[4] = 2;
    assert_eq!(Request::decode(&newer), Err(FrameError::Version(2)));
    let mut unknown = good;
    unknown[6] = 99;
    assert_eq!(Request::decode(&unknown), Err(FrameError::Malformed));
    assert_eq!(Message::decode(&good), Err(FrameError::Malformed));
}

#[test]
fn every_message_survives_random_bytes() {
    let mut seed = 1_u64;
    for _ in 0..10_000 {
        let mut frame = Message::Replaced.encode(0);
        for byte in &mut frame[6..] {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        frame[6] = 100 + frame[6] % 13;
        frame[7] = 0;
        let _ = Message::decode(&frame);
    }
}
