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
            sessions: 2_000,
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

    /// Bytes of anonymous memory now, and how many sessions are up.
    pub(super) fn memory(&self) -> io::Result<(u64, usize)> {
        let clients = self.fields.iter().map(|field| field.clients.len());
        Ok((sessions::memory(self.gateway.id())?, clients.sum()))
    }

    /// Lets the gateway give back what handshakes took.
    pub(super) fn rest(arenas: &mut [Self]) -> io::Result<()> {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            arenas.iter_mut().try_for_each(Self::step)?;
        }
        Ok(())
    }

    /// Ends the gateway; what its last line says.
    pub(super) fn stop(self) -> io::Result<gateway::Last> {
        drop(self.fields);
        self.gateway.stop()
    }
}
