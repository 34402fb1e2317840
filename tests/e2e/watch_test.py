"""`tandem status --watch`: on a terminal, into a pipe, and as JSON. Whatever is shown is shown whole, the
states of a peer that goes and comes back appear, and it ends with SIGINT and with its node."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading

import node
from node import check
from proxy import Proxy

CLEAR = "\x1b[H\x1b[2J"
AWAY = ("connecting", "backing_off", "resting")
NODE_LOST = 5


class Watch(threading.Thread):
    """A watching process, and what it has shown: a list of refreshes, each a text."""

    def __init__(self, field, data, *args, terminal=False):
        super().__init__(daemon=True)
        self.terminal, self.is_json, self.bytes = terminal, "--json" in args, b""
        if terminal:
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        else:
            ours, theirs = os.pipe()
        self.process = subprocess.Popen(
            [field.tandem, "--data", data, *args, "status", "--watch"], stdin=subprocess.DEVNULL,
            stdout=theirs, stderr=subprocess.PIPE, env=node.environment())
        field.processes.append(self.process)
        os.close(theirs)
        self.fd = ours
        self.start()

    def run(self):
        while True:
            try:
                piece = os.read(self.fd, 4096)
            except OSError:  # of a terminal whose other side is gone
                piece = b""
            if not piece:
                return
            self.bytes += piece

    def text(self):
        return self.bytes.decode().replace("\r\n", "\n")

    def refreshes(self):
        """Those that are over, for there is a next one."""
        return self.split()[:-1]

    def split(self):
        text = self.text()
        if self.is_json:
            return text.split("\n")
        if self.terminal:
            first, *shown = text.split(CLEAR)
            check(not first, "something stands before the first refresh", repr(first))
            return shown
        return re.split("^(?=reactor )", text, flags=re.M)[1:]

    def state(self, refresh):
        """A refresh is whole; the state that it shows of the peer `a`."""
        if self.is_json:
            row, = [one for one in json.loads(refresh)["remotes"] if one["name"] == "a"]
            return row["state"]
        check(refresh.startswith("reactor ") and refresh.endswith("\n"), "not whole", repr(refresh))
        rows = refresh.splitlines()
        check([row.split(" ")[0] for row in rows[:4]] == ["reactor", "store", "listens", "PEER"],
              "not whole", refresh)
        row, = [one for one in rows[4:] if one.split()[0] == "a"]
        return row.split()[1]

    def states(self):
        """All that it has shown, one after the other."""
        states = []
        for refresh in self.refreshes():
            state = self.state(refresh)
            if states[-1:] != [state]:
                states.append(state)
        return states

    def ends(self, code, deadline_s=node.DEADLINE_S):
        """It has ended so; what it has said on stderr. The last refresh is whole, too."""
        _, err = self.process.communicate(timeout=deadline_s)
        self.join()
        os.close(self.fd)
        check(self.process.returncode == code, "exit %d, not %d" % (self.process.returncode, code),
              err)
        last = self.split()[-1]
        if self.is_json:
            check(last == "", "the last line is not whole", last)
        else:
            self.state(last)
        return err.decode()


def watches(field, target):
    return [Watch(field, target.data, terminal=True), Watch(field, target.data),
            Watch(field, target.data, "--json"), Watch(field, target.data, "--json", terminal=True)]


def all_show(field, watching, what, shows):
    field.until("%s is shown" % what, lambda: all(shows(one.states()) for one in watching), every=0.1)


def pair(field):
    a, b = field.nodes_started("a", "b")
    proxy = Proxy(field, a)
    b.run("-q", "peer", "add", "a", proxy.url)
    b.wait(a)
    return a, b, proxy


def changes_of_state_are_shown(field):
    _, b, proxy = pair(field)
    watching = watches(field, b)
    all_show(field, watching, "that they are in step", lambda states: states[-1:] == ["in_step"])
    proxy.set(refuse=True)
    proxy.cut()
    all_show(field, watching, "that a is away", lambda states: states[-1] in AWAY)
    proxy.set()
    b.run("-q", "peer", "sync", "a")
    all_show(field, watching, "that it is back", lambda states: states[-1] == "in_step")
    for one in watching:
        check(one.states()[0] == "in_step" and len(one.states()) >= 3, "other states", one.states())
        one.process.send_signal(signal.SIGINT)
        check(one.ends(130) == "", "it has something to say about a signal")
    field.ends_cleanly()


def it_ends_with_its_node(field):
    _, b, _ = pair(field)
    for number in (signal.SIGTERM, signal.SIGKILL):
        watching = watches(field, b)
        all_show(field, watching, "a state", lambda states: states)
        b.end(number)
        for one in watching:
            err = one.ends(NODE_LOST)
            check("the node" in err and "TANDEM_E_UNREACHABLE" in err, "it does not say why", err)
        b.start()
    field.ends_cleanly()


def signals_end_it_whatever_it_waits_for(field):
    """Also for the answer of a node that does not give one."""
    _, b, _ = pair(field)
    for frozen in (False, True):
        watching = watches(field, b)
        all_show(field, watching, "a state", lambda states: states)
        if frozen:
            b.freeze()
        for number, one in zip((signal.SIGINT, signal.SIGTERM) * 2, watching):
            one.process.send_signal(number)
            one.ends(128 + number)
    b.thaw()
    field.ends_cleanly()


def a_stopped_store_is_shown_once(field):
    """Nothing changes there while it is looked at, and whoever wants to start must not wait."""
    _, b, _ = pair(field)
    b.end()
    for args in ((), ("--json",)):
        result = b.run(*args, "status", "--watch", code=NODE_LOST)
        check(len(re.findall('^(?:reactor |{"reactor")', result.out, re.M)) == 1 and
              result.out.endswith("\n"), "not once", result.out)
        check("no node runs" in result.err, "it does not say why", result.err)
    b.start()
    field.ends_cleanly()


node.main(changes_of_state_are_shown, it_ends_with_its_node, signals_end_it_whatever_it_waits_for,
          a_stopped_store_is_shown_once)
