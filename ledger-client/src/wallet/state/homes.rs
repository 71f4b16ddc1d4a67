//! What a wallet remembers of gateways: what is worn there, and what was erased.

use caregate_protocol::code::Quantity;
use caregate_protocol::erasure::SignedOrder;
use caregate_protocol::id::{DataClass, DeviceId, PatientId};
use caregate_protocol::policy::{Classes, Commitment, DEVICES_MAX, Mac, SignedBinding};
use zeroize::Zeroizing;

use super::{
    Device, ERASED_MAX, ErasedHome, GATEWAY_BYTES_MAX, HOMES_MAX, Home, HomeSecret, Wallet, WalletError, name,
};
use crate::verify::{EnrolledDevice, EnrolledPatient, EnrolledRelationship, slots};
use crate::wallet::{KeyError, PatientSeed, device_salt};

impl Wallet {
    /// The pseudonym at a gateway, also where it was erased.
    ///
    /// # Errors
    /// [`WalletError::NoGateway`].
    pub fn patient_at(&self, gateway: &str) -> Result<PatientId, WalletError> {
        match self.home(gateway) {
            Ok(home) => Ok(home.patient),
            Err(unknown) => {
                let mut erased = self.erased.iter().rev();
                erased.find(|home| home.gateway == gateway).map(|home| home.patient).ok_or(unknown)
            }
        }
    }

    /// Signs that nothing of the patient is to stay at a gateway; `made_us` is Unix time in microseconds.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_erasure(&self, gateway: &str, made_us: i64) -> Result<SignedOrder, WalletError> {
        let patient = self.patient_at(gateway)?;
        Ok(self.seed.home_key(gateway)?.sign_erasure(patient, made_us, &self.ledger()?.domain))
    }

    /// Whether a pseudonym was erased, as far as the wallet remembers.
    #[must_use]
    pub fn is_erased(&self, patient: &PatientId) -> bool {
        self.erased.iter().any(|home| home.patient == *patient)
    }

    /// Destroys what the wallet has of a gateway: the secret of its salts, and what was worn there. Of it stay name and pseudonym, to ask
    /// for receipts. False where there was nothing.
    pub fn erase_home(&mut self, gateway: &str) -> bool {
        let Some(at) = self.homes.iter().position(|home| home.gateway == gateway) else { return false };
        let Home { gateway, patient, .. } = self.homes.remove(at);
        self.erased.push(ErasedHome { gateway, patient });
        if self.erased.len() > ERASED_MAX {
            self.erased.remove(0);
        }
        true
    }

    /// A gateway by its name.
    ///
    /// # Errors
    /// [`WalletError::NoGateway`].
    pub fn home(&self, gateway: &str) -> Result<&Home, WalletError> {
        let found = self.homes.iter().find(|known| known.gateway == gateway);
        found.ok_or_else(|| WalletError::NoGateway(gateway.to_owned()))
    }

    /// A gateway by its name; made where it is new.
    ///
    /// # Errors
    /// [`WalletError`]: no name, or too many.
    pub fn home_mut(&mut self, gateway: &str) -> Result<&mut Home, WalletError> {
        let at = match self.homes.iter().position(|known| known.gateway == gateway) {
            Some(at) => at,
            None => {
                name("a gateway's name", gateway, GATEWAY_BYTES_MAX)?;
                if self.homes.len() >= HOMES_MAX {
                    return Err(WalletError::TooMany { what: "gateways", max: HOMES_MAX });
                }
                let secret = HomeSecret(Zeroizing::new(*PatientSeed::generate().as_bytes()));
                // A pseudonym that was erased is taken nowhere again.
                let patient = if self.erased.iter().any(|home| home.gateway == gateway) {
                    PatientSeed::generate().patient(gateway)
                } else {
                    self.seed.patient(gateway)
                };
                let gateway = gateway.to_owned();
                self.homes.push(Home {
                    gateway,
                    patient,
                    emergency: true,
                    devices: Vec::new(),
                    secret: Some(secret),
                });
                self.homes.len() - 1
            }
        };
        Ok(&mut self.homes[at])
    }

    /// Adds a device to a gateway, or gives it another address; a device that is bound keeps its address.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn add_device(&mut self, gateway: &str, device: &DeviceId, mac: Mac) -> Result<(), WalletError> {
        if !mac.is_unicast() {
            return Err(WalletError::Mac(mac));
        }
        let home = self.home_mut(gateway)?;
        if let Some(known) = home.devices.iter_mut().find(|known| known.device == *device) {
            if known.mac != mac && known.bound {
                return Err(WalletError::Duplicate {
                    what: "with another address, device",
                    name: device.to_string(),
                });
            }
            // Another address is another commitment, whose versions begin anew.
            if known.mac != mac {
                (known.mac, known.version) = (mac, 0);
            }
            return Ok(());
        }
        if home.devices.len() >= DEVICES_MAX {
            return Err(WalletError::TooMany { what: "devices", max: DEVICES_MAX });
        }
        home.devices.push(Device {
            device: device.clone(),
            mac,
            version: 0,
            bound: false,
            classes: Classes::default(),
        });
        Ok(())
    }

    /// Says of which class a device's readings of a quantity are, or with none all that no rule names; without a class the rule goes. Other
    /// rules are another commitment, whose versions begin anew, so a device that is bound is released first: else the ledger would go on to
    /// vouch for the rules of before.
    ///
    /// # Errors
    /// [`WalletError`]; nothing is changed then.
    pub fn classify(
        &mut self,
        gateway: &str,
        device: &DeviceId,
        quantity: Option<&'static Quantity>,
        class: Option<DataClass>,
    ) -> Result<&Classes, WalletError> {
        self.enrolled_device(gateway, device)?;
        let known = self.home_mut(gateway)?.devices.iter_mut().find(|known| known.device == *device);
        let known = known.ok_or_else(|| WalletError::NoGateway(gateway.to_owned()))?;
        let before = known.classes.clone();
        let mut classes = before.clone();
        classes.set(quantity, class)?;
        if classes != before {
            if known.bound {
                return Err(WalletError::Bound(device.clone()));
            }
            (known.classes, known.version) = (classes, 0);
        }
        Ok(&known.classes)
    }

    /// Notes the version of a binding that the ledger has.
    pub fn note_binding(&mut self, gateway: &str, device: &DeviceId, version: u64) {
        let homes = self.homes.iter_mut().filter(|home| home.gateway == gateway);
        for known in homes.flat_map(|home| &mut home.devices).filter(|known| known.device == *device) {
            known.version = known.version.max(version);
        }
    }

    /// What a gateway pins of a device, and so its commitment.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn enrolled_device(&self, gateway: &str, device: &DeviceId) -> Result<EnrolledDevice, WalletError> {
        let Home { devices, secret, .. } = self.home(gateway)?;
        let known = devices.iter().find(|known| known.device == *device);
        let known =
            known.ok_or_else(|| WalletError::NoGateway(format!("{gateway}, with a device {device}")))?;
        let salt = match secret {
            Some(HomeSecret(secret)) => device_salt(secret, gateway, device),
            None => self.seed.device_salt(gateway, device),
        };
        Ok(EnrolledDevice { device: device.clone(), mac: known.mac, salt, classes: known.classes.clone() })
    }

    /// Signs that a device is bound, or is no more. Keep the wallet before handing it on.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_binding(
        &mut self,
        gateway: &str,
        device: &DeviceId,
        bound: bool,
    ) -> Result<SignedBinding, WalletError> {
        let domain = self.ledger()?.domain;
        let commitment = self.enrolled_device(gateway, device)?.commitment();
        let key = self.seed.home_key(gateway)?;
        let known = self.home_mut(gateway)?.devices.iter_mut().find(|known| known.device == *device);
        let known = known.ok_or_else(|| WalletError::NoGateway(gateway.to_owned()))?;
        let version =
            known.version.checked_add(1).ok_or(WalletError::NoVersion("the device can't change any more"))?;
        (known.version, known.bound) = (version, bound);
        Ok(key.sign_binding(commitment, bound, version, &domain))
    }

    /// What a gateway pins of this patient: all relationships, and what the patient wears there.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn enrolled(&self, gateway: &str) -> Result<EnrolledPatient, WalletError> {
        let home = self.home(gateway)?;
        let relationships = self
            .relationships
            .iter()
            .map(|known| match known.first {
                Some((grant_key, revoke_key)) => {
                    Ok(EnrolledRelationship { label: known.label.clone(), grant_key, revoke_key })
                }
                None => Ok(self.seed.relationship_keys(&known.grantee, known.number)?.enrolled(&known.label)),
            })
            .collect::<Result<_, KeyError>>()?;
        let devices = home.devices.iter().map(|known| self.enrolled_device(gateway, &known.device));
        Ok(EnrolledPatient {
            patient: home.patient,
            home_key: self.seed.home_key(gateway)?.address(),
            pseudonym: home.emergency.then(|| self.emergency_pseudonym()),
            relationships,
            devices: devices.collect::<Result<_, _>>()?,
        })
    }

    /// The key of a device's binding in the contract.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn binding_key(&self, gateway: &str, device: &DeviceId) -> Result<Commitment, WalletError> {
        let commitment = self.enrolled_device(gateway, device)?.commitment();
        Ok(slots::binding_key(&self.seed.home_key(gateway)?.address(), &commitment))
    }
}
