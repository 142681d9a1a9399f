//! Any text as a timeline history: what is written of it reads the same.
#![no_main]

use cellarman::domain::timeline::TimelineId;
use cellarman::pgfile::history;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for number in [1, 3, u32::MAX] {
        let timeline = TimelineId::new(number).expect("a timeline");
        if let Ok(line) = history::parse(timeline, text) {
            for ancestor in line.ancestors() {
                assert!(line.contains(ancestor.timeline));
                assert!(line.switched_at(ancestor.timeline).is_some());
            }
            let again = history::parse(timeline, &history::print(&line));
            assert_eq!(again, Ok(line));
        }
    }
});
