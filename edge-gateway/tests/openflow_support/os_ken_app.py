"""An os-ken controller (Debian's python3-os-ken) that takes one switch through all that it has, and says what it sees as JSON lines.

Arguments: port, key, certificate, CA.
"""

from os_ken.lib import hub

# Before anything else imports ssl: its sockets must not block the others.
hub.patch(thread=False)

import json
import logging
import sys

from os_ken import cfg
from os_ken.base.app_manager import AppManager, OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3
from os_ken.ofproto import ofproto_v1_3_parser as of


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Story(OSKenApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, ev):
        say("features", dpid=ev.msg.datapath_id, n_tables=ev.msg.n_tables)

    @set_ev_cls(ofp_event.EventOFPPortDescStatsReply, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def ports(self, ev):
        say("ports", ports=[[p.port_no, p.name.decode().rstrip("\0")] for p in ev.msg.body])
        self.begin(ev.msg.datapath)

    def begin(self, dp):
        o = ofproto_v1_3
        steps = []

        def flow(name, match, instructions, table=1, command=o.OFPFC_ADD, cookie=0):
            msg = of.OFPFlowMod(
                dp, cookie=cookie, table_id=table, command=command, priority=100, out_port=o.OFPP_ANY,
                out_group=o.OFPG_ANY, flags=o.OFPFF_SEND_FLOW_REM, match=match, instructions=instructions)
            steps.append((name, msg))

        def apply(*actions):
            return [of.OFPInstructionActions(o.OFPIT_APPLY_ACTIONS, list(actions))]

        sensor = of.OFPMatch(eth_src="02:00:00:00:00:01")
        lane = of.OFPMatch(in_port=o.OFPP_LOCAL, eth_type=0x0800, ip_proto=17, udp_src=7400)
        marking = apply(of.OFPActionSetField(ip_dscp=46), of.OFPActionSetQueue(1), of.OFPActionOutput(o.OFPP_NORMAL))
        prefix = of.OFPMatch(eth_type=0x86DD, ipv6_src=("2001:db8::", "ffff:ffff::"))
        flow("quarantine", sensor, [], cookie=1)
        flow("marking", lane, marking, cookie=2)
        flow("prefix", prefix, [], cookie=3)
        flow("table-0", sensor, [], table=0)
        flow("mirror", sensor, apply(of.OFPActionOutput(o.OFPP_LOCAL), of.OFPActionOutput(3)))
        flow("spy", of.OFPMatch(), apply(of.OFPActionOutput(o.OFPP_CONTROLLER)))
        flow("unknown-field", of.OFPMatch(eth_type=0x88E7, pbb_isid=1), [])
        flow("unknown-action", lane, apply(of.OFPActionPopPbb()))
        flow("goto", sensor, [of.OFPInstructionGotoTable(1)])
        flow("meter", sensor, [of.OFPInstructionMeter(1)])

        def packet(name, port):
            out = of.OFPPacketOut(dp, o.OFP_NO_BUFFER, o.OFPP_CONTROLLER, [of.OFPActionOutput(port)], b"\x02" * 60)
            steps.append((name, out))

        packet("to-sensor", 1)
        packet("to-uplink", 3)
        steps.append(("group", of.OFPGroupMod(dp, o.OFPGC_ADD, o.OFPGT_INDIRECT, 1, [])))
        steps.append(("description", of.OFPDescStatsRequest(dp, 0)))
        steps.append(("flows", of.OFPFlowStatsRequest(dp, 0, o.OFPTT_ALL, o.OFPP_ANY, o.OFPG_ANY, 0, 0, of.OFPMatch())))
        steps.append(("aggregate", of.OFPAggregateStatsRequest(dp, 0, 1, o.OFPP_ANY, o.OFPG_ANY, 0, 0, of.OFPMatch())))
        steps.append(("tables", of.OFPTableStatsRequest(dp, 0)))
        steps.append(("port-stats", of.OFPPortStatsRequest(dp, 0, o.OFPP_ANY)))
        steps.append(("groups", of.OFPGroupStatsRequest(dp, 0, 77)))
        steps.append(("role", of.OFPRoleRequest(dp, o.OFPCR_ROLE_MASTER, 7)))
        flow("release", of.OFPMatch(), [], command=o.OFPFC_DELETE)
        self.names = {}
        for name, msg in steps:
            dp.send_msg(msg)
            self.names[msg.xid] = name
        dp.send_msg(of.OFPBarrierRequest(dp))

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [HANDSHAKE_DISPATCHER, CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def error(self, ev):
        name = getattr(self, "names", {}).get(ev.msg.xid, "?")
        say("error", of=name, type=ev.msg.type, code=ev.msg.code)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def barrier(self, _ev):
        say("barrier")

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def removed(self, ev):
        say("removed", cookie=ev.msg.cookie, reason=ev.msg.reason)

    @set_ev_cls(ofp_event.EventOFPDescStatsReply, MAIN_DISPATCHER)
    def description(self, ev):
        say("description", manufacturer=ev.msg.body.mfr_desc.decode().rstrip("\0"))

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def flows(self, ev):
        say("flows", flows=[[f.cookie, f.table_id, f.match.to_jsondict(), [i.to_jsondict() for i in f.instructions]]
                            for f in ev.msg.body])

    @set_ev_cls(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)
    def aggregate(self, ev):
        say("aggregate", flows=ev.msg.body.flow_count)

    @set_ev_cls(ofp_event.EventOFPTableStatsReply, MAIN_DISPATCHER)
    def tables(self, ev):
        say("tables", tables=[[t.table_id, t.active_count] for t in ev.msg.body])

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def port_stats(self, ev):
        say("port-stats", ports=[p.port_no for p in ev.msg.body])

    @set_ev_cls(ofp_event.EventOFPRoleReply, MAIN_DISPATCHER)
    def role(self, ev):
        say("role", role=ev.msg.role)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def port_status(self, ev):
        say("port-status", port=ev.msg.desc.port_no, state=ev.msg.desc.state)


def main():
    logging.basicConfig(level=logging.WARNING)
    port, key, certificate, ca = sys.argv[1:]
    cfg.CONF(args=[
        "--ofp-tcp-listen-port", "0", "--ofp-ssl-listen-port", port, "--ofp-listen-host", "127.0.0.1",
        "--ctl-privkey", key, "--ctl-cert", certificate, "--ca-certs", ca,
    ], project="os_ken", version="test")
    AppManager.run_apps([__name__, "os_ken.controller.ofp_handler"])


if __name__ == "__main__":
    main()
