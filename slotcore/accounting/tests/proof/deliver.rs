//! What Managers and Routers do with what arrives.

use std::sync::Arc;

use slotcore_accounting::{Grant, LedgerError};

use crate::world::{MANAGERS, Message, World};

impl World {
    /// Hands a message over. False: its receiver does not take it now.
    pub fn deliver(&mut self, message: Message) -> bool {
        match message {
            Message::Attach { m, r, stream } => {
                let ledger = &mut self.ledgers[m];
                if ledger.attach(&r, stream)
                    && let Some(term) = ledger.term()
                {
                    self.send(Message::Welcome { m, r, stream, term });
                }
            }
            Message::Welcome { m, r, stream, term } => {
                if let Some(r) = self.router(&r) {
                    self.send_hello(r, m, stream, term);
                }
            }
            Message::Hello {
                m,
                r,
                stream,
                term,
                holdings,
            } => {
                let holdings = holdings
                    .iter()
                    .map(|(c, held, running)| (&**c, *held, *running));
                match self.ledgers[m].hello(&r, stream, term, holdings) {
                    Ok(ended) => {
                        for container in ended {
                            self.send(Message::Ended {
                                r: r.clone(),
                                container,
                            });
                        }
                    }
                    Err(LedgerError::CommitPending) => return false,
                    Err(_) => {
                        self.broken = Some("a router says Hello with more than the ledger says");
                    }
                }
            }
            Message::Order {
                m,
                r,
                stream,
                container,
                target,
                version,
            } => {
                let spec = Arc::new(self.spec(&container));
                if let Some(r) = self.router(&r) {
                    let order = Grant {
                        container,
                        target,
                        version,
                        spec,
                    };
                    // A refusal is part of the protocol; nobody waits here, so nothing is granted at once.
                    let _ = self.routers[r].table.order(MANAGERS[m], stream, &order, 0);
                }
            }
            Message::Ack {
                m,
                r,
                stream,
                container,
                holding,
                version,
            } => {
                let ledger = &mut self.ledgers[m];
                match ledger.acknowledge(&r, stream, &container, holding, version) {
                    Err(LedgerError::CommitPending) => return false,
                    counted => {
                        let _ = counted.expect("an acknowledgement is never an error");
                    }
                }
            }
            Message::Ended { r, container } => {
                if let Some(r) = self.router(&r) {
                    self.routers[r].table.ended(&container);
                }
            }
        }
        true
    }
}
