//! Who goes first, of the files that one call archives: the asked one, then those ahead.
//!
//! Not here: which files those are (`look_ahead`).

use tokio::sync::watch;

/// How far the asked file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Begun,
    HasMemory,
    Safe,
}

/// A file's place in that order.
#[derive(Debug)]
pub(super) enum Turn {
    /// It is the asked one, and waits for nobody.
    Asked(watch::Sender<Stage>),
    /// It follows the asked one.
    Ahead(watch::Receiver<Stage>),
}

impl Turn {
    /// The turn of the asked file, and that of all which follow it.
    pub(super) fn new() -> (Self, Self) {
        let (asked, ahead) = watch::channel(Stage::Begun);
        (Self::Asked(asked), Self::Ahead(ahead))
    }

    /// The turn of files ahead of one that is safe already.
    pub(super) fn after_safe() -> Self {
        let (_, ahead) = watch::channel(Stage::Safe);
        Self::Ahead(ahead)
    }

    /// Waits until the asked file was given up before it was safe: those ahead are, then.
    pub(super) async fn given_up(&self) {
        if let Self::Ahead(progress) = self {
            let is_safe = |now: &Stage| *now == Stage::Safe;
            if progress.clone().wait_for(is_safe).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Waits until the file may take memory. Those ahead hold theirs until the asked file is
    /// safe, so that it must have its own before.
    pub(super) async fn to_compress(&self) {
        self.until(Stage::HasMemory).await;
    }

    /// The file has its memory.
    pub(super) fn has_memory(&self) {
        self.reach(Stage::HasMemory);
    }

    /// Waits until the file may be put.
    pub(super) async fn to_put(&self) {
        self.until(Stage::Safe).await;
    }

    /// The file is in the store.
    pub(super) fn is_safe(&self) {
        self.reach(Stage::Safe);
    }

    fn reach(&self, stage: Stage) {
        if let Self::Asked(progress) = self {
            progress.send_replace(stage);
        }
    }

    async fn until(&self, stage: Stage) {
        let Self::Ahead(progress) = self else { return };
        let reached = progress.clone().wait_for(|now| *now >= stage).await.is_ok();
        if !reached {
            // The asked file was given up: this future gets dropped.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn those_ahead_follow_the_asked_file_step_by_step() {
        let (asked, ahead) = Turn::new();
        assert!(asked.to_compress().now_or_never().is_some());
        assert!(asked.to_put().now_or_never().is_some());
        assert!(ahead.to_compress().now_or_never().is_none());
        asked.has_memory();
        assert!(ahead.to_compress().now_or_never().is_some());
        assert!(ahead.to_put().now_or_never().is_none());
        asked.is_safe();
        assert!(ahead.to_put().now_or_never().is_some());
    }

    #[test]
    fn what_follows_a_safe_file_is_not_given_up_with_its_call() {
        let (asked, ahead) = Turn::new();
        asked.is_safe();
        drop(asked);
        for ahead in [ahead, Turn::after_safe()] {
            assert!(ahead.to_put().now_or_never().is_some());
            assert!(ahead.given_up().now_or_never().is_none());
        }
    }

    #[test]
    fn nothing_follows_an_asked_file_that_was_given_up() {
        let (asked, ahead) = Turn::new();
        asked.has_memory();
        assert!(ahead.given_up().now_or_never().is_none());
        drop(asked);
        assert!(ahead.to_put().now_or_never().is_none());
        assert!(ahead.given_up().now_or_never().is_some());
    }
}
