//! Taking programs off beside what goes on: the kernel waits for whoever is in one, seconds in all on a busy machine, and its buffers have
//! to be emptied meanwhile.

use std::thread::{self, JoinHandle};

/// What is being taken off.
#[derive(Default)]
pub struct Detaching(Option<JoinHandle<()>>);

impl Detaching {
    /// Takes off what `take_off` lets go of, in a thread, or at once where there is none to be had. What came before is waited for.
    pub fn begin(&mut self, take_off: impl FnOnce() + Send + 'static) {
        self.wait();
        self.0 = thread::Builder::new().name("detach".to_owned()).spawn(take_off).ok();
    }

    /// Waits until all is off.
    pub fn wait(&mut self) {
        if let Some(thread) = self.0.take() {
            // It only drops links, and a panic there would leave them dropped as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Detaching {
    /// Nothing is left attached when this is gone.
    fn drop(&mut self) {
        self.wait();
    }
}
