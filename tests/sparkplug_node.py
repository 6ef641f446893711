#!/usr/bin/env python3
"""An edge node of Sparkplug B by pysparkplug, with a device.

It is born before anybody listens, waits for SIGUSR1, and leaves at the next one. Then it sends data, by name and by alias alone, historical data, and after one
message that gets lost on the way. Whenever it is asked for its births it connects anew, as the library has no other way, and says so.
"""

import argparse
import dataclasses
import signal
import threading
import time

from pysparkplug import Client, DataType, Device, EdgeNode, MessageType, Metric


class Link(Client):
    """A client that can lose a message, and that leaves out the names where an alias says the same."""

    lose = False
    aliases_only = False

    def __init__(self, client_id):
        super().__init__(client_id)
        self.born = threading.Event()

    def publish(self, message, *, include_dtypes=False):
        if self.lose:
            self.lose = False
            return
        if self.aliases_only and message.topic.message_type in (MessageType.NDATA, MessageType.DDATA):
            metrics = tuple(dataclasses.replace(metric, name=None) for metric in message.payload.metrics)
            message = dataclasses.replace(message, payload=dataclasses.replace(message.payload, metrics=metrics))
            include_dtypes = False
        super().publish(message, include_dtypes=include_dtypes)
        # The last of the births: the node has one device.
        if message.topic.message_type == MessageType.DBIRTH:
            self.born.set()


class Plant:
    def __init__(self, host, port):
        self.address = host, port
        self.asked = threading.Event()
        self.link = Link("sparkplug-node")
        metrics = [
            self.metric("temperature", DataType.DOUBLE, 20.5, 1),
            self.metric("position", DataType.INT32, -5, 2),
            self.metric("maker", DataType.STRING, "ACME", 3),
        ]
        self.node = EdgeNode("plant", "press", metrics, self.link, cmd_callback=self.command)
        self.node.register(Device("pump", [self.metric("rpm", DataType.UINT16, 900, 4)]))

    @staticmethod
    def metric(name, datatype, value, alias, timestamp=None, **more):
        return Metric(timestamp or int(time.time() * 1000), name, datatype, value=value, alias=alias, **more)

    def command(self, node, message):
        if any(metric.name == "Node Control/Rebirth" and metric.value for metric in message.payload.metrics):
            self.asked.set()

    def connect(self):
        host, port = self.address
        self.link.born.clear()
        self.node.connect(host, port=port)
        if not self.link.born.wait(60):
            raise SystemExit("no connection")
        # An answer from the broker, which comes after it has taken the births: a host that comes now must not hear half of them.
        answered = set()
        paho = self.link._client
        paho.on_subscribe = lambda client, data, mid, granted: answered.add(mid)
        _, mid = paho.subscribe("births/are/out")
        while mid not in answered:
            time.sleep(0.01)
        print("born", flush=True)

    def wait_asked(self):
        """A host asks at most every ten seconds."""
        if not self.asked.wait(60):
            raise SystemExit("nobody asked for births")
        print("asked for births", flush=True)
        self.node.disconnect()
        self.asked.clear()
        self.connect()

    def temperature(self, value, **more):
        self.node.update([self.metric("temperature", DataType.DOUBLE, value, 1, **more)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    plant = Plant(arguments.host, arguments.port)
    plant.connect()
    signal.sigwait({signal.SIGUSR1})
    plant.link.aliases_only = True
    plant.temperature(21.0)  # Nobody knows the alias.
    plant.wait_asked()
    plant.temperature(22.0)
    plant.node.update_device("pump", [plant.metric("rpm", DataType.UINT16, 950, 4)])
    plant.temperature(19.0, timestamp=1_600_000_000_000, is_historical=True)
    plant.link.aliases_only = False
    plant.node.update([plant.metric("position", DataType.INT32, -7, 2)])
    plant.link.lose = True
    plant.temperature(23.0)
    plant.temperature(24.0)
    plant.wait_asked()
    plant.temperature(25.0)
    print("all is sent", flush=True)
    # With quality of service 0, as Sparkplug wants it, nobody tells the node that its last message has arrived.
    signal.sigwait({signal.SIGUSR1})
    plant.node.disconnect()


if __name__ == "__main__":
    main()
