//! What happens to a frame that a flow matches, and what a controller may ask for at all.

use caregate_protocol::openflow::{BadAction, BadMatch, ErrorKind};

use super::pattern::Pattern;
use super::port;

/// One action of a flow-mod (OpenFlow 1.3.5 §7.2.5) of those that this switch has; others are `OFPBAC_BAD_TYPE` before
/// they come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `OFPAT_OUTPUT`
    Output {
        /// Where to.
        port: u32,
        /// Bytes of the frame for the controller.
        max_len: u16,
    },
    /// `OFPAT_SET_FIELD` of `ip_dscp`.
    SetDscp(u8),
    /// `OFPAT_SET_QUEUE`
    SetQueue(u32),
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Drop,
    /// To the gateway itself, as table 0 decided.
    Local,
    /// On its way out, as the gateway's routing decided.
    Normal,
    /// To the controller.
    Controller {
        /// Its first bytes, at most so many.
        max_len: u16,
    },
}

/// All that a flow does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// Written into the IP header.
    pub dscp: Option<u8>,
    /// Of the uplink.
    pub queue: Option<u32>,
    /// Where to.
    pub output: Output,
    /// The port that the output named; `None` where there was none.
    pub port: Option<u32>,
}

/// What a port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRole {
    /// Sensors.
    Sensor,
    /// Core and controller.
    Uplink,
}

/// The switch's ports, numbered from 1, and the queues of its uplinks, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    roles: Vec<PortRole>,
    queues: u32,
}

impl Ports {
    /// Ports in the order of the helper's configuration.
    #[must_use]
    pub fn new(roles: Vec<PortRole>, queues: u32) -> Self {
        Self { roles, queues }
    }

    /// What port `number` leads to, if there is one.
    #[must_use]
    pub fn role(&self, number: u32) -> Option<PortRole> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.roles.get(index).copied()
    }

    /// Whether frames of a sensor port can match.
    fn covers_sensors(&self, pattern: &Pattern) -> bool {
        pattern.in_port().is_none_or(|number| self.role(number) == Some(PortRole::Sensor))
    }

    /// Whether frames can come in by the port that the pattern names: a sensor port or `LOCAL`. Frames from an uplink are not
    /// looked up in this table.
    ///
    /// # Errors
    /// `OFPBMC_BAD_VALUE`.
    pub fn check_match(&self, pattern: &Pattern) -> Result<(), ErrorKind> {
        match pattern.in_port() {
            None | Some(port::LOCAL) => Ok(()),
            Some(number) if self.role(number) == Some(PortRole::Sensor) => Ok(()),
            Some(_) => Err(ErrorKind::BadMatch(BadMatch::BadValue)),
        }
    }

    /// What these actions, in this order, do to the frames of `pattern`.
    ///
    /// # Errors
    /// `OFPBAC_EPERM` where a sensor port's frame would go anywhere but to `LOCAL`, or be changed or queued; else
    /// `BAD_OUT_PORT`, `BAD_QUEUE`, `BAD_SET_ARGUMENT`, `MATCH_INCONSISTENT`, `UNSUPPORTED_ORDER` (something after the output),
    /// `TOO_MANY` (a second output).
    pub fn treatment(&self, pattern: &Pattern, actions: &[Action]) -> Result<Treatment, ErrorKind> {
        if self.covers_sensors(pattern) && !actions.iter().all(only_narrows) {
            return Err(ErrorKind::BadAction(BadAction::Eperm));
        }
        let mut treatment = Treatment { dscp: None, queue: None, output: Output::Drop, port: None };
        for action in actions {
            if treatment.port.is_some() {
                let again = matches!(action, Action::Output { .. });
                let code = if again { BadAction::TooMany } else { BadAction::UnsupportedOrder };
                return Err(ErrorKind::BadAction(code));
            }
            match *action {
                Action::Output { port, max_len } => {
                    treatment.output = output(pattern, port, max_len).map_err(ErrorKind::BadAction)?;
                    treatment.port = Some(port);
                }
                Action::SetDscp(_) if !pattern.is_ip() => {
                    return Err(ErrorKind::BadAction(BadAction::MatchInconsistent));
                }
                Action::SetDscp(dscp) if dscp >= 64 => {
                    return Err(ErrorKind::BadAction(BadAction::BadSetArgument));
                }
                Action::SetDscp(dscp) => treatment.dscp = Some(dscp),
                Action::SetQueue(queue) if queue >= self.queues => {
                    return Err(ErrorKind::BadAction(BadAction::BadQueue));
                }
                Action::SetQueue(queue) => treatment.queue = Some(queue),
            }
        }
        Ok(treatment)
    }
}

fn only_narrows(action: &Action) -> bool {
    matches!(action, Action::Output { port: port::LOCAL, .. })
}

fn output(pattern: &Pattern, number: u32, max_len: u16) -> Result<Output, BadAction> {
    match number {
        // A frame never goes back to where it came in, unless the action says IN_PORT (§7.2.1).
        port::LOCAL if pattern.in_port() != Some(port::LOCAL) => Ok(Output::Local),
        port::NORMAL => Ok(Output::Normal),
        port::CONTROLLER => Ok(Output::Controller { max_len }),
        _ => Err(BadAction::BadOutPort),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Field;
    use super::*;

    fn ports() -> Ports {
        Ports::new(vec![PortRole::Sensor, PortRole::Uplink], 4)
    }

    fn from(number: u32) -> Pattern {
        Pattern::any().with(Field::InPort, &number.to_be_bytes(), None).unwrap()
    }

    fn out(port: u32) -> Action {
        Action::Output { port, max_len: 128 }
    }

    fn refused(pattern: &Pattern, actions: &[Action]) -> &'static str {
        ports().treatment(pattern, actions).unwrap_err().as_str()
    }

    #[test]
    fn a_sensors_frame_is_dropped_or_stays_here() {
        let sensor = from(1);
        assert_eq!(ports().treatment(&sensor, &[]).unwrap().output, Output::Drop);
        assert_eq!(ports().treatment(&sensor, &[out(port::LOCAL)]).unwrap().output, Output::Local);
        let eth = Pattern::any().with(Field::EthSrc, &[2, 0, 0, 0, 0, 1], None).unwrap();
        for pattern in [sensor, Pattern::any(), eth] {
            for number in [1, 2, 9, port::NORMAL, port::CONTROLLER, port::IN_PORT, 0xffff_fffb, 0xffff_fffc] {
                assert_eq!(refused(&pattern, &[out(number)]), "OFPBAC_EPERM", "{number:#x}");
                assert_eq!(refused(&pattern, &[out(port::LOCAL), out(number)]), "OFPBAC_EPERM", "a mirror");
            }
            assert_eq!(refused(&pattern, &[Action::SetDscp(46), out(port::LOCAL)]), "OFPBAC_EPERM");
            assert_eq!(refused(&pattern, &[Action::SetQueue(1), out(port::LOCAL)]), "OFPBAC_EPERM");
            assert_eq!(refused(&pattern, &[out(port::LOCAL), out(port::LOCAL)]), "OFPBAC_TOO_MANY");
        }
    }

    #[test]
    fn what_the_gateway_sends_is_marked_and_queued() {
        let ip = from(port::LOCAL).with(Field::EthType, &[8, 0], None).unwrap();
        let actions = [Action::SetDscp(46), Action::SetQueue(3), out(port::NORMAL)];
        let wanted =
            Treatment { dscp: Some(46), queue: Some(3), output: Output::Normal, port: Some(port::NORMAL) };
        assert_eq!(ports().treatment(&ip, &actions), Ok(wanted));
        assert_eq!(refused(&ip, &[Action::SetDscp(64)]), "OFPBAC_BAD_SET_ARGUMENT");
        assert_eq!(refused(&ip, &[Action::SetQueue(4)]), "OFPBAC_BAD_QUEUE");
        assert_eq!(refused(&ip, &[out(port::NORMAL), Action::SetQueue(1)]), "OFPBAC_UNSUPPORTED_ORDER");
        assert_eq!(refused(&from(port::LOCAL), &[Action::SetDscp(46)]), "OFPBAC_MATCH_INCONSISTENT");
        for number in [1, 2, 3, port::LOCAL, port::IN_PORT] {
            assert_eq!(refused(&ip, &[out(number)]), "OFPBAC_BAD_OUT_PORT", "{number:#x}");
        }
    }

    #[test]
    fn frames_come_in_by_sensor_ports_and_local_alone() {
        assert_eq!(ports().check_match(&from(1)), Ok(()));
        assert_eq!(ports().check_match(&from(port::LOCAL)), Ok(()));
        assert_eq!(ports().check_match(&Pattern::any()), Ok(()));
        for number in [2, 3] {
            assert_eq!(ports().check_match(&from(number)).unwrap_err().as_str(), "OFPBMC_BAD_VALUE");
        }
    }
}
