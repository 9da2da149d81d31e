//! One gateway of the matrix with all its sessions, which stay up for the whole run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use datapath::session::ClientSettings;
use datapath::time::Duration;

use super::super::connect_to_shards;
use super::super::gateway::{self, Gateway, Plan};
use super::super::load::Field;
use super::super::process::Workspace;
use super::super::sessions;
use super::cell::Engine;
use crate::floor::rig;

/// Sessions of one measurement of set-ups.
const SET_UPS: usize = 100;

/// Sessions that come before those whose memory is read, more than have their handshakes at a time.
const UNCOUNTED: usize = 500;
const WEIGHED: usize = 1_000;

/// The gateway, its sessions, and what they cost.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) engine: Engine,
    gateway: Gateway,
    to: SocketAddr,
    /// With 1, 64 and 1,000 clients, as far as they are wanted.
    fields: Vec<Field>,
    /// Bytes of anonymous memory before the first session.
    pub(super) empty: u64,
    /// Bytes of it a session.
    pub(super) memory_each: Option<f64>,
    /// Set-ups per second of its CPU, a round each.
    pub(super) set_ups: Vec<f64>,
}

impl Arena {
    /// Starts the gateway, and brings up these numbers of sessions.
    pub(super) fn start(
        workspace: &Workspace,
        settings: &Arc<ClientSettings>,
        index: u16,
        engine: Engine,
        counts: &[usize],
    ) -> io::Result<Self> {
        let to = SocketAddr::from(([127, 0, 0, 1], 450 + index));
        let tun = format!("sstp{}", 10 + index);
        let plan = Plan {
            name: &format!("matrix-{index}"),
            listen: &to.to_string(),
            pool: &format!("10.{}.0.0/16", 81 + index),
            tun: &tun,
            shards: engine.shards,
            sessions: 3_000,
            network: None,
        };
        let told = gateway::Engine {
            driver: Some(engine.driver),
            kernel_tls: engine.kernel_tls.then_some("require"),
        };
        let gateway = Gateway::start_with(workspace, &plan, told)?;
        // A burst must find room in the device whole, as in the floor's.
        rig::ip(&format!("link set {tun} txqueuelen 2000"))?;
        let mut arena = Self {
            engine,
            empty: sessions::memory(gateway.id())?,
            memory_each: None,
            gateway,
            to,
            fields: Vec::new(),
            set_ups: Vec::new(),
        };
        for &count in counts {
            let shards = usize::from(engine.shards);
            let clients = connect_to_shards(workspace, settings, to, count, shards)?;
            let meter = arena.gateway.meter.clone();
            arena.fields.push(Field::new(clients, meter));
            arena.gateway.skim();
        }
        Ok(arena)
    }

    /// The field with so many clients.
    pub(super) fn field(&mut self, sessions: usize) -> Option<&mut Field> {
        let mut fields = self.fields.iter_mut();
        fields.find(|field| field.clients.len() == sessions)
    }

    /// Answers what the gateway asks of idle clients.
    pub(super) fn step(&mut self) -> io::Result<()> {
        self.fields.iter_mut().try_for_each(Field::step)
    }

    /// Sets up some more sessions and cuts them.
    pub(super) fn set_up(
        &mut self,
        workspace: &Workspace,
        settings: &Arc<ClientSettings>,
    ) -> io::Result<()> {
        let before = self.gateway.meter.read()?;
        let shards = usize::from(self.engine.shards);
        let clients = connect_to_shards(workspace, settings, self.to, SET_UPS, shards)?;
        let value = sessions::per_core_second(&mut self.gateway, before, clients)?;
        self.set_ups.push(value);
        Ok(())
    }

    /// Reads what each of 1,000 more sessions takes. What hundreds of handshakes at a time took is kept
    /// by the allocator and serves the next, so the first of them are not counted.
    pub(super) fn weigh(
        &mut self,
        workspace: &Workspace,
        settings: &Arc<ClientSettings>,
    ) -> io::Result<()> {
        let shards = usize::from(self.engine.shards);
        let mut up = Vec::new();
        let mut memory = [0; 2];
        for (count, bytes) in [UNCOUNTED, WEIGHED].into_iter().zip(&mut memory) {
            up.push(connect_to_shards(
                workspace, settings, self.to, count, shards,
            )?);
            self.gateway.skim();
            // What handshakes leave is given back in a while.
            std::thread::sleep(Duration::from_secs(2));
            *bytes = sessions::memory(self.gateway.id())?;
        }
        let [before, after] = memory;
        self.memory_each = Some(after.saturating_sub(before) as f64 / WEIGHED as f64);
        Ok(())
    }

    /// Ends the gateway; what its last line says.
    pub(super) fn stop(self) -> io::Result<gateway::Last> {
        drop(self.fields);
        self.gateway.stop()
    }
}
