//! The NATS server on which the core stores: on the core's loopback, with a user for the core and one to ask how it syncs.

use caregate_host::key_file::{self, Existing};

use super::{Deployment, random};
use crate::demo::network::{Network, Service};

impl Deployment {
    /// Writes the server's configuration; returns the core's side of it.
    pub(super) fn write_nats(&self, network: &Network) -> anyhow::Result<String> {
        let address = format!("127.0.0.1:{}", network.listen(Service::Nats).port());
        let user = |name: &str| -> anyhow::Result<(String, String)> {
            let (password, file) =
                (hex::encode(random::<16>()?), self.dir.join(format!("nats-{name}.password")));
            key_file::write(&file, password.as_bytes(), Existing::Keep)?;
            Ok((format!("{{ user: {name}, password: \"{password}\" }}"), format!("{file:?}")))
        };
        let ((core, core_file), (system, system_file)) = (user("core")?, user("system")?);
        let config = format!(
            "listen: \"{address}\"\nserver_name: demo\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {store:?}, sync_interval: always }}\n\
             accounts {{\n  CORE {{ jetstream: enabled, users: [ {core} ] }}\n  SYS {{ users: [ {system} ] }}\n}}\n\
             system_account: SYS\n",
            store = self.dir.join("nats"),
        );
        // It has passwords in it.
        key_file::write(&self.dir.join("nats.conf"), config.as_bytes(), Existing::Keep)?;
        Ok(format!(
            "[nats]\nurl = \"nats://{address}\"\nuser = \"core\"\npassword_file = {core_file}\n\
             system_user = \"system\"\nsystem_password_file = {system_file}\n"
        ))
    }
}
