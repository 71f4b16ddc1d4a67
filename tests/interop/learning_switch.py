"""A learning switch on os-ken: the launcher that its releases no longer bring, and the application of its tutorial.

Arguments: port, key, certificate, CA. Says {"event": "switch"} for each switch that comes and {"event": "packet-in"} for each
frame that one sends, as JSON lines.
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
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class LearningSwitch(OSKenApp):
    OFP_VERSIONS = [of.OFP_VERSION]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ports = {}

    def add_flow(self, datapath, priority, match, actions):
        instructions = [parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions)]
        datapath.send_msg(parser.OFPFlowMod(datapath, priority=priority, match=match, instructions=instructions))

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, event):
        to_controller = [parser.OFPActionOutput(of.OFPP_CONTROLLER, of.OFPCML_NO_BUFFER)]
        self.add_flow(event.msg.datapath, 0, parser.OFPMatch(), to_controller)
        say("switch", datapath_id=event.msg.datapath_id)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def error(self, event):
        say("error", type=event.msg.type, code=event.msg.code)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        message, datapath = event.msg, event.msg.datapath
        in_port = message.match["in_port"]
        frame = packet.Packet(message.data).get_protocol(ethernet.ethernet)
        say("packet-in", port=in_port, source=frame.src, reason=message.reason)
        self.ports[frame.src] = in_port
        out_port = self.ports.get(frame.dst, of.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(out_port)]
        if out_port != of.OFPP_FLOOD:
            match = parser.OFPMatch(in_port=in_port, eth_src=frame.src, eth_dst=frame.dst)
            self.add_flow(datapath, 1, match, actions)
        datapath.send_msg(parser.OFPPacketOut(datapath, of.OFP_NO_BUFFER, in_port, actions, message.data))


def main():
    logging.basicConfig(level=logging.WARNING)
    port, key, certificate, ca = sys.argv[1:]
    cfg.CONF(args=[
        "--ofp-tcp-listen-port", "0", "--ofp-ssl-listen-port", port, "--ofp-listen-host", "127.0.0.1",
        "--ctl-privkey", key, "--ctl-cert", certificate, "--ca-certs", ca,
    ], project="os_ken", version="interop")
    AppManager.run_apps([__name__, "os_ken.controller.ofp_handler"])


if __name__ == "__main__":
    main()
