//! Which blocks belong to something already.

use std::collections::BTreeMap;

/// Disjoint ranges of blocks. Neighbours are one range, so there are at most as
/// many as claims, and mostly far fewer.
#[derive(Default)]
pub(super) struct Claims {
    /// Ends by starts.
    ranges: BTreeMap<u64, u64>,
}

impl Claims {
    /// Takes `len` blocks from `start` on. `Err` is a block that is taken.
    pub(super) fn claim(&mut self, start: u64, len: u64) -> Result<(), u64> {
        let end = start + len;
        if let Some((from, to)) = self.ranges.range(..end).next_back().map(|(a, b)| (*a, *b)) {
            if to > start {
                return Err(from.max(start));
            }
            if to == start {
                self.ranges.insert(from, end);
                self.join(from, end);
                return Ok(());
            }
        }
        self.ranges.insert(start, end);
        self.join(start, end);
        Ok(())
    }

    /// Joins the range `start..end` with one that begins at its end.
    fn join(&mut self, start: u64, end: u64) {
        if let Some(further) = self.ranges.remove(&end) {
            self.ranges.insert(start, further);
        }
    }

    /// The claimed parts of `start..end`, in order.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.ranges.range(..start).next_back().filter(|(_, to)| **to > start);
        first
            .into_iter()
            .chain(self.ranges.range(start..end))
            .map(move |(a, b)| ((*a).max(start), (*b).min(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_claimed_once() {
        let mut claims = Claims::default();
        for (start, len) in [(10, 5), (20, 5), (15, 5), (0, 10)] {
            assert_eq!(claims.claim(start, len), Ok(()));
        }
        assert_eq!(claims.ranges.len(), 1);
        assert_eq!(claims.claim(30, 2), Ok(()));
        for (start, len, taken) in [(24, 1, 24), (0, 1, 0), (25, 6, 30), (28, 9, 30), (31, 1, 31)] {
            assert_eq!(claims.claim(start, len), Err(taken));
        }
        assert_eq!(claims.within(24, 31).collect::<Vec<_>>(), [(24, 25), (30, 31)]);
        assert_eq!(claims.within(25, 30).count(), 0);
    }
}
