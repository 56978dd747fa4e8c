//! What libbpf and the verifier say, kept for the error instead of printed.

use std::cell::RefCell;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{PrintCallback, PrintLevel, get_print, set_print};

thread_local! {
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whoever was to be told of messages before, and still is of other threads'.
static PREVIOUS: Mutex<Option<(PrintLevel, PrintCallback)>> = Mutex::new(None);

/// Runs `act` and returns with its result what libbpf said in this thread meanwhile.
pub(crate) fn capture<T>(act: impl FnOnce() -> T) -> (T, String) {
    install();
    CAPTURED.set(Some(String::new()));
    let result = act();
    let log = CAPTURED.take().unwrap_or_default();
    (result, log)
}

/// libbpf has one receiver a process, so it stays in place once it is there.
fn install() {
    let mut previous = PREVIOUS.lock().unwrap_or_else(PoisonError::into_inner);
    let now = get_print();
    if now.is_none_or(|(_, callback)| !ptr::fn_addr_eq(callback, receive as PrintCallback)) {
        *previous = now;
        set_print(Some((PrintLevel::Info, receive)));
    }
}

fn receive(level: PrintLevel, message: String) {
    let taken = CAPTURED.with_borrow_mut(|captured| match captured {
        Some(log) => {
            log.push_str(&message);
            true
        }
        None => false,
    });
    if taken {
        return;
    }
    let previous = *PREVIOUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((min_level, callback)) = previous {
        if level <= min_level {
            callback(level, message);
        }
    }
}
