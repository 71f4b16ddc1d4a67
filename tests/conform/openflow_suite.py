"""The OpenFlow switch suite of the os-ken wheel, one case at a time as asked on standard input.

The suite (os_ken.tests.switch.tester) is an os-ken application: a controller that waits for two switches, the one that is
tested (the target) and the one that sends and receives for it (the tester), and goes through JSON files of cases. Here it is
the same application with the same verdicts, but for what goes around them: which case is next comes as one JSON line on
standard input, the verdict goes as one JSON line to standard output, and an exception that the suite itself doesn't expect
fails the case instead of ending the run.

    openflow_suite.py list DIRECTORY
    openflow_suite.py run DIRECTORY KEY CERTIFICATE CA TARGET TESTER

`list` prints every case: {"group", "file", "name", "pktps"}, the file relative to the directory, the rate 0 where the case is one
frame. `run` listens on 127.0.0.1, on port 6653 for OpenFlow over mutual TLS and on
6654 for OpenFlow over TCP, which is for the tester: sealing the frames that it sends would cost what the suite needs to send
20,000 of them in a second. TARGET and TESTER are datapath ids of 16 hexadecimal digits. It says {"ready": true} when both
switches are there, then answers each {"file", "name", "interval"} by {"file", "name", "passed", "reason", "connected", "seconds"}.
It ends with standard input.
"""

import os

# The suite kills its threads, which os-ken can with eventlet only. Its timer sends frames every 10 ms: epoll, eventlet's default,
# rounds that up to whole milliseconds, which makes the suite send 5 % less than its cases say.
os.environ["OSKEN_HUB_TYPE"] = "eventlet"
os.environ["EVENTLET_HUB"] = "selects"

from os_ken.lib import hub

# Before anything else imports ssl: its sockets must not block the others.
hub.patch(thread=False)

import functools
import json
import logging
import signal
import sys
import time

from os_ken import cfg, flags, log  # noqa: F401  flags and log register the options that the suite reads
from os_ken.base.app_manager import AppManager
from os_ken.controller import controller  # noqa: F401  registers the options of the listener
from os_ken.tests.switch import tester

# OpenFlow's port, and one beside it.
TLS_PORT = 6653
TCP_PORT = 6654
# A switch that doesn't come within this is not going to: Open vSwitch's longest back-off is 8 s.
CONNECT_SECONDS_MAX = 60
# One line of standard input: a case's name and file. The longest name of the suite has 400 bytes.
READ_BYTES = 4096


def say(**fields):
    """One line, whole: what reads it reads lines."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def files(directory):
    """The JSON files under a directory, in the order of their names."""
    for folder, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            if name.endswith(".json"):
                yield os.path.join(folder, name)


def rate(case):
    """Frames per second that a case sends for a while; 0 where it sends one."""
    rates = [0]
    for test in case["tests"]:
        ingress = test["ingress"]
        if isinstance(ingress, dict):
            rates.append(ingress["packets"].get("pktps", tester.DEFAULT_PKTPS))
    return max(rates)


def list_cases(directory):
    """Says every case; a file holds its own description as a string, and its cases as objects."""
    for path in files(directory):
        with open(path, encoding="utf-8") as opened:
            cases = [case for case in json.load(opened) if isinstance(case, dict)]
        relative = os.path.relpath(path, directory)
        for case in cases:
            say(group=relative.split(os.sep)[0], file=relative, name=case["description"], pktps=rate(case))


def lines():
    """The lines of standard input, read so that the switches' connections go on meanwhile."""
    from eventlet.green import os as green_os

    os.set_blocking(0, False)
    pending = b""
    while True:
        line, found, pending_next = pending.partition(b"\n")
        if found:
            pending = pending_next
            yield line
            continue
        more = green_os.read(0, READ_BYTES)
        if not more:
            return
        pending += more


class Reason(logging.Handler):
    """The last line that the suite logged: under a failed case, why it failed."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def emit(self, record):
        self.text = record.getMessage().strip()


class Pace:
    """os-ken's hub as the suite sees it, but for the 10 ms between two handfuls of a case that sends at a rate.

    The suite sleeps them anew each time, so it loses what each waking is late: some 3 % on an idle machine, more than 5 % on a
    busy one, of the 10 % that it allows the switch. Here they are due at fixed times, so that a case sends what it says.
    """

    # After a pause this long (another case) it begins anew instead of catching up.
    PAUSE_SECONDS = 0.25

    def __init__(self):
        self.due = 0.0

    def __getattr__(self, name):
        return getattr(hub, name)

    def sleep(self, seconds):
        if seconds == tester.CONTINUOUS_THREAD_INTVL:
            now = time.monotonic()
            if now - self.due > Pace.PAUSE_SECONDS:
                self.due = now
            self.due += seconds
            seconds = max(0.0, self.due - now)
        hub.sleep(seconds)


@functools.lru_cache(maxsize=4)
def test_file(path):
    """A file of cases as the suite reads it."""
    return tester.TestFile(path, logging.getLogger("suite"))


class Driven(tester.OfTester):
    """The suite, driven by standard input."""

    directory = None

    def _set_logger(self):
        # What it logs at this level is verdicts and their reasons, which are said here as JSON.
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)

    def _test_sequential_execute(self, _directory):
        try:
            self._drive()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    def _connected(self):
        switches = (self.target_sw, self.tester_sw)
        return not any(isinstance(switch.dp, tester.DummyDatapath) for switch in switches)

    def _await_switches(self):
        deadline = time.monotonic() + CONNECT_SECONDS_MAX
        while not self._connected():
            if time.monotonic() > deadline:
                absent = "the target" if isinstance(self.target_sw.dp, tester.DummyDatapath) else "the tester"
                return f"{absent} is not connected"
            hub.sleep(0.05)
        return None

    def _drive(self):
        absent = self._await_switches()
        say(ready=absent is None, reason=absent)
        for line in lines():
            asked = json.loads(line)
            started = time.monotonic()
            passed, reason = self._verdict(asked["file"], asked["name"])
            seconds = round(time.monotonic() - started, 3)
            say(file=asked["file"], name=asked["name"], passed=passed, reason=reason, connected=self._connected(),
                seconds=seconds)
            hub.sleep(asked["interval"])

    def _verdict(self, file, name):
        path = os.path.join(Driven.directory, file)
        case = next((case for case in test_file(path).tests if case.description == name), None)
        if case is None:
            return False, "the suite could not read this case"
        absent = self._await_switches()
        if absent:
            return False, absent
        reason = Reason()
        self.logger.addHandler(reason)
        self.waiter = None
        try:
            result = self._test_execute(case, None)
        except Exception as error:  # pylint: disable=broad-except
            return False, f"the suite's own {type(error).__name__}: {error}"
        finally:
            self.logger.removeHandler(reason)
        return result == tester.TEST_OK, "" if result == tester.TEST_OK else reason.text


def listen_tcp():
    """os-ken's own listener takes either TLS or TCP."""
    server = hub.StreamServer(("127.0.0.1", TCP_PORT), controller.datapath_connection_factory)
    hub.spawn(server.serve_forever)


def run(directory, key, certificate, authorities, target, test_switch):
    """Serves the two switches and standard input."""
    logging.basicConfig(level=logging.WARNING)
    options = [
        "--ofp-listen-host", "127.0.0.1", "--ofp-ssl-listen-port", str(TLS_PORT),
        "--ctl-privkey", key, "--ctl-cert", certificate, "--ca-certs", authorities,
        "--test-switch-target", target, "--test-switch-tester", test_switch,
    ]
    cfg.CONF(args=options, project="os_ken", version="conform")
    Driven.directory = directory
    tester.hub = Pace()
    listen_tcp()
    AppManager.run_apps([__name__, "os_ken.controller.ofp_handler"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"] and len(sys.argv) == 3:
        list_cases(sys.argv[2])
    elif sys.argv[1:2] == ["run"] and len(sys.argv) == 8:
        run(*sys.argv[2:])
    else:
        sys.exit(__doc__)
