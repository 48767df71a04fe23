//! Where the data is: stripes of blocks, each on a drive, and how they move. Knows nothing of containers and states.

/// The drive of a block that is nowhere any more.
const LOST: u32 = u32::MAX;

/// The most blocks of a stripe that a machine gets when there are too few machines for a block each: two machines of
/// a "+4" cluster may fail, one of a "+2" cluster that is so short of machines.
pub(crate) const MOST_TOGETHER: usize = 2;

/// What matters of a drive for the data. [`Places`] has one for each drive number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Number of its machine: the failure domain.
    pub(crate) machine: u32,
    /// Its blocks can be read.
    pub(crate) readable: bool,
    /// It may get blocks.
    pub(crate) takes: bool,
    /// Its blocks shall go elsewhere.
    pub(crate) leaves: bool,
    /// Blocks that find room on it.
    pub(crate) room: usize,
    /// Blocks that are on it.
    pub(crate) held: usize,
}

pub(crate) type Places = Vec<Place>;

/// How well the data is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Readable blocks of all stripes.
    pub(crate) readable: usize,
    /// Readable blocks of the stripe that has the fewest.
    pub(crate) fewest: usize,
    /// How many stripes can be read and have lost so many of their failure domains; the last entry counts more, too.
    pub(crate) failures: Vec<usize>,
    /// Stripes that can not be read.
    pub(crate) unreadable: usize,
}

/// All stripes. Those of a cluster are its truth: no reply shows them.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    data: usize,
    width: usize,
    /// The drive of each block, stripe after stripe.
    at: Vec<u32>,
    /// Where the next look for a block to move begins, so that all stripes get their turn.
    cursor: usize,
    /// Two blocks of a stripe may be on one machine.
    crowded: bool,
}

impl Blocks {
    /// No stripe at all.
    pub(crate) fn none() -> Self {
        Self {
            data: 0,
            width: 1,
            at: Vec::new(),
            cursor: 0,
            crowded: false,
        }
    }

    /// Stripes spread evenly over the places that take blocks.
    pub(crate) fn spread_over(
        places: &mut Places,
        stripes: usize,
        data: usize,
        protection: usize,
    ) -> Self {
        let width = data + protection;
        let mut blocks = Self {
            data,
            width,
            at: vec![LOST; stripes * width],
            cursor: 0,
            crowded: false,
        };
        for index in 0..blocks.at.len() {
            let drive = blocks.target(index, places, MOST_TOGETHER);
            blocks.put(index, drive.expect("the data fits"), places);
        }
        blocks
    }

    pub(crate) fn stripes(&self) -> usize {
        self.at.len() / self.width
    }

    pub(crate) fn count(&self) -> usize {
        self.at.len()
    }

    /// Enters into each place how many blocks it holds.
    pub(crate) fn count_into(&self, places: &mut Places) {
        for &drive in self.at.iter().filter(|drive| **drive != LOST) {
            places[drive as usize].held += 1;
        }
    }

    /// The drive's blocks are no more.
    pub(crate) fn lose(&mut self, drive: u32) {
        for at in self.at.iter_mut().filter(|at| **at == drive) {
            *at = LOST;
        }
    }

    pub(crate) fn health(&self, places: &Places, protection: usize) -> Health {
        let mut health = Health {
            fewest: usize::MAX,
            failures: vec![0; protection + 1],
            ..Health::default()
        };
        let mut machines = Vec::with_capacity(self.width);
        for stripe in self.at.chunks(self.width) {
            machines.clear();
            let mut readable = 0;
            for drive in stripe.iter().filter(|drive| is_readable(**drive, places)) {
                readable += 1;
                let machine = places[*drive as usize].machine;
                if !machines.contains(&machine) {
                    machines.push(machine);
                }
            }
            health.readable += readable;
            health.fewest = health.fewest.min(readable);
            if readable < self.data {
                health.unreadable += 1;
            } else {
                health.failures[(self.width - machines.len()).min(protection)] += 1;
            }
        }
        health
    }

    /// Makes up to `budget` blocks that can not be read anew from the others of their stripes; stripes that miss most
    /// come first.
    pub(crate) fn rebuild(&mut self, places: &mut Places, budget: usize) {
        let readable = places.iter().filter(|place| place.readable);
        if readable.map(|place| place.held).sum::<usize>() == self.count() {
            return;
        }
        let mut missing: Vec<(usize, usize)> = Vec::new();
        for stripe in 0..self.stripes() {
            let blocks = stripe * self.width..(stripe + 1) * self.width;
            let unreadable = |index: &usize| !is_readable(self.at[*index], places);
            let readable = self.width - blocks.clone().filter(unreadable).count();
            if readable >= self.data {
                missing.extend(
                    blocks
                        .filter(unreadable)
                        .take(self.width - readable)
                        .map(|index| (readable, index)),
                );
            }
        }
        missing.sort_unstable();
        for (_, index) in missing.into_iter().take(budget) {
            if let Some(drive) = self.target(index, places, MOST_TOGETHER) {
                self.put(index, drive, places);
            }
        }
    }

    /// Moves up to `budget` blocks away from drives that are left.
    pub(crate) fn drain(&mut self, places: &mut Places, budget: usize) {
        if !places.iter().any(|place| place.leaves && place.held > 0) {
            return;
        }
        let leaving =
            |at: u32, places: &Places| is_readable(at, places) && places[at as usize].leaves;
        let mut left = budget;
        for index in 0..self.at.len() {
            if left == 0 {
                return;
            }
            if !leaving(self.at[index], places) {
                continue;
            }
            if let Some(drive) = self.target(index, places, MOST_TOGETHER) {
                self.put(index, drive, places);
                left -= 1;
            }
        }
    }

    /// Moves up to `budget` blocks: first those that share a machine with another of their stripe, then from the
    /// fullest drive to the emptiest.
    pub(crate) fn balance(&mut self, places: &mut Places, budget: usize) {
        let mut left = budget;
        if self.crowded {
            let crowded: Vec<usize> = (0..self.count())
                .filter(|index| self.shares_a_machine(*index, places))
                .collect();
            self.crowded = !crowded.is_empty();
            for index in crowded {
                // The other one may have moved meanwhile.
                if left == 0 || !self.shares_a_machine(index, places) {
                    continue;
                }
                if let Some(drive) = self.target(index, places, 1) {
                    self.put(index, drive, places);
                    left -= 1;
                }
            }
        }
        while left > 0 && self.even_out(places) {
            left -= 1;
        }
    }

    fn even_out(&mut self, places: &mut Places) -> bool {
        let takes = || {
            let all = places.iter().enumerate();
            all.filter(|(_, place)| place.takes && place.readable)
        };
        let fullest = takes().max_by_key(|(_, place)| place.held);
        let emptiest = takes().min_by_key(|(_, place)| place.held);
        let (Some((full, most)), Some((empty, least))) = (fullest, emptiest) else {
            return false;
        };
        if most.held < least.held + 4 || least.held >= least.room {
            return false;
        }
        let (full, empty, machine) = (full as u32, empty as u32, least.machine);
        let others = |index: &usize| {
            let stripe = self.stripe(*index).iter();
            stripe.filter(|drive| **drive != full && **drive != LOST)
        };
        let count = self.at.len();
        let found = (0..count)
            .map(|step| (self.cursor + step) % count)
            .filter(|index| self.at[*index] == full)
            .find(|index| others(index).all(|drive| places[*drive as usize].machine != machine));
        let Some(index) = found else {
            return false;
        };
        self.cursor = index + 1;
        self.put(index, empty, places);
        true
    }

    /// The emptiest of the drives on the machine with the fewest blocks of the stripe.
    fn target(&self, index: usize, places: &Places, together: usize) -> Option<u32> {
        let all = (0_u32..).zip(places);
        all.filter(|(_, place)| place.takes && place.readable && place.held < place.room)
            .map(|(drive, place)| {
                let there = self.others_on(place.machine, index, places);
                (there, place.held, drive)
            })
            .filter(|(there, ..)| *there < together)
            .min()
            .map(|(.., drive)| drive)
    }

    /// Readable blocks of the same stripe on a machine, without the block itself.
    fn others_on(&self, machine: u32, index: usize, places: &Places) -> usize {
        let others = self.stripe(index).iter().enumerate();
        others
            .filter(|(block, drive)| *block != index % self.width && is_readable(**drive, places))
            .filter(|(_, drive)| places[**drive as usize].machine == machine)
            .count()
    }

    fn put(&mut self, index: usize, drive: u32, places: &mut Places) {
        let from = std::mem::replace(&mut self.at[index], drive);
        if from != LOST {
            places[from as usize].held -= 1;
        }
        places[drive as usize].held += 1;
        let machine = places[drive as usize].machine;
        self.crowded |= self.others_on(machine, index, places) > 0;
    }

    fn stripe(&self, index: usize) -> &[u32] {
        let first = index - index % self.width;
        &self.at[first..first + self.width]
    }

    fn shares_a_machine(&self, index: usize, places: &Places) -> bool {
        let own = self.at[index];
        is_readable(own, places) && self.others_on(places[own as usize].machine, index, places) > 0
    }
}

fn is_readable(drive: u32, places: &Places) -> bool {
    drive != LOST && places[drive as usize].readable
}
