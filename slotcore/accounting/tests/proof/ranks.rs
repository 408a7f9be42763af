//! Worlds that differ in nothing but the passage of time, made equal.

use slotcore_accounting::renumber::Numbers;
use slotcore_accounting::{Ledger, Name, Slot, Term};

use crate::world::{Message, World, Write};

impl World {
    /// Replaces numbers that only grow by their ranks.
    pub fn renumber(&mut self) {
        self.drop_void_messages();
        for router in &mut self.routers {
            let _ = router.table.demand();
        }
        let mut numbers = Numbers::default();
        self.visit(&mut numbers);
        numbers.replace();
        self.visit(&mut numbers);
    }

    /// Loses at once what can have no effect, now or ever; that saves states. (Planted bugs may hear it.)
    fn drop_void_messages(&mut self) {
        if self.bug.is_some() {
            return;
        }
        let (routers, ledgers) = (&self.routers, &self.ledgers);
        // A stream that its Router has closed; the term of a Manager that leads no more, or was greeted already.
        let open = |m: usize, r: &Name, stream: u64| {
            let mut routers = routers.iter();
            routers.any(|router| router.name == *r && router.streams[m] == stream)
        };
        let awaited = |m: usize, r: &Name, term: Term| {
            let ledger: &Ledger = &ledgers[m];
            ledger.term() == Some(term) && !ledger.known(r)
        };
        self.net.retain(|message| match message {
            Message::Attach { m, r, stream } => {
                open(*m, r, *stream) && ledgers[*m].stream(r) < *stream
            }
            Message::Hello {
                m, r, stream, term, ..
            } => open(*m, r, *stream) && awaited(*m, r, *term),
            Message::Welcome { m, r, stream, .. }
            | Message::Order { m, r, stream, .. }
            | Message::Ack { m, r, stream, .. } => open(*m, r, *stream),
            Message::Ended { .. } => true,
        });
    }

    fn visit(&mut self, numbers: &mut Numbers) {
        numbers.revision(&mut self.etcd.revision);
        numbers.revision(&mut self.etcd.term);
        numbers.revision(&mut self.etcd.turn);
        numbers.stream(&mut self.stream);
        for transaction in &mut self.etcd.late {
            match &mut transaction.write {
                Write::Commit(commit) => {
                    numbers.term(&mut commit.term);
                    numbers.revision(&mut commit.turn);
                }
                Write::Fence(term) => numbers.term(term),
            }
        }
        for ledger in &mut self.ledgers {
            ledger.renumber(numbers);
        }
        for router in &mut self.routers {
            for stream in &mut router.streams {
                numbers.stream(stream);
            }
            let (mut slots, at): (Vec<Slot>, Vec<usize>) =
                std::mem::take(&mut router.out).into_iter().unzip();
            router.table.renumber(numbers, &mut slots);
            router.out = slots.into_iter().zip(at).collect();
        }
        self.net = std::mem::take(&mut self.net)
            .into_iter()
            .map(|mut message| {
                match &mut message {
                    Message::Attach { stream, .. } => numbers.stream(stream),
                    Message::Welcome { stream, term, .. } | Message::Hello { stream, term, .. } => {
                        numbers.stream(stream);
                        numbers.term(term);
                    }
                    Message::Order {
                        stream, version, ..
                    }
                    | Message::Ack {
                        stream, version, ..
                    } => {
                        numbers.stream(stream);
                        numbers.version(version);
                    }
                    Message::Ended { .. } => {}
                }
                message
            })
            .collect();
    }
}
