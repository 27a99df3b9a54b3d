//! Who owns and who reads the pages of a batch in the backward: a page belongs to the segment that wrote it, and later segments of the batch
//! may read it. Does not know heads nor what stands in a page.

use std::ops::Range;

use super::{PAGE_TOKENS, Segment};

/// The pages of a batch, each counted once.
pub(super) struct Owners {
    /// Per segment, the place among all pages of each page of its table; its own are consecutive.
    pub places: Vec<Vec<usize>>,
    /// Per segment, the later segments that read pages of it, ascending: (segment, which pages).
    pub readers: Vec<Vec<(usize, Range<usize>)>>,
    /// All pages.
    pub count: usize,
}

#[derive(Clone, Copy)]
struct Owned {
    segment: usize,
    /// Which page of the sequence.
    page: usize,
    place: usize,
    /// All its positions are written.
    full: bool,
}

impl Owners {
    /// `layer_pages` bounds the page ids.
    ///
    /// # Panics
    /// When a segment does not start at a page border, a page before its start is not a full page of an earlier segment at the same
    /// positions, or a page from its start on is another's.
    pub(super) fn new(segments: &[&Segment], layer_pages: usize) -> Owners {
        let mut owned: Vec<Option<Owned>> = vec![None; layer_pages];
        let mut owners = Owners { places: Vec::new(), readers: vec![Vec::new(); segments.len()], count: 0 };
        for (s, segment) in segments.iter().enumerate() {
            assert!(segment.start.is_multiple_of(PAGE_TOKENS), "attention_backward: a segment starts at a page border");
            let (first, end) = (segment.start / PAGE_TOKENS, segment.end());
            let mut places = Vec::with_capacity(end.div_ceil(PAGE_TOKENS));
            for (page, id) in segment.pages.iter().enumerate().take(end.div_ceil(PAGE_TOKENS)) {
                let known = &mut owned[id.0 as usize];
                assert!(
                    known.map_or(page >= first, |o| page < first && o.page == page && o.full),
                    "attention_backward: pages before a segment's start are full pages of an earlier one, the others its own"
                );
                let place = match *known {
                    Some(o) => {
                        note(&mut owners.readers[o.segment], s, page);
                        o.place
                    }
                    None => {
                        let place = owners.count;
                        *known = Some(Owned { segment: s, page, place, full: (page + 1) * PAGE_TOKENS <= end });
                        owners.count += 1;
                        place
                    }
                };
                places.push(place);
            }
            owners.places.push(places);
        }
        owners
    }
}

/// Pages come ascending, so a reader's pages of one owner join to a range.
fn note(readers: &mut Vec<(usize, Range<usize>)>, reader: usize, page: usize) {
    match readers.last_mut() {
        Some((last, pages)) if *last == reader && pages.end == page => pages.end += 1,
        _ => readers.push((reader, page..page + 1)),
    }
}
