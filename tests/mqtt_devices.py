#!/usr/bin/env python3
"""Devices by Eclipse paho: many clients, each with a connection of its own, publish readings with quality of service 1.

The ledger has a line for each reading that the broker has acknowledged: `sensor seq`, 16 bytes. A device keeps what is not acknowledged and
paho sends it again after a reconnect. SIGUSR1: nothing new is published, and `paused` is printed when all is acknowledged; SIGUSR2: on.
"""

import argparse
import selectors
import signal
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WINDOW = 20  # Messages without acknowledgement, for each device.
RECONNECT = 0.5  # Seconds.


class Device:
    """A client of paho on the fleet's own loop."""

    def __init__(self, fleet, number):
        self.fleet = fleet
        self.sensor = f"d-{number:04d}"
        self.seq = 0
        self.waiting = {}
        self.online = False
        self.retry_at = 0.0
        # Both versions, with sessions that are kept and such that are not.
        self.v5 = number % 2 == 0
        kept = number % 4 < 2
        options = {} if self.v5 else {"clean_session": not kept}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, f"paho-{number}", protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311, **options
        )
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_publish = self.on_publish
        self.client.on_socket_open = lambda client, data, socket: fleet.watch(socket, self)
        self.client.on_socket_close = lambda client, data, socket: fleet.forget(socket)
        self.client.on_socket_register_write = lambda client, data, socket: fleet.writes(socket, self, True)
        self.client.on_socket_unregister_write = lambda client, data, socket: fleet.writes(socket, self, False)
        self.arguments = {"keepalive": 30}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if kept else 0
            self.arguments |= {"clean_start": not kept, "properties": properties}

    def connect(self, host, port):
        self.retry_at = time.monotonic() + RECONNECT
        try:
            self.client.connect(host, port, **self.arguments)
        except OSError:
            pass

    def on_connect(self, client, data, flags, reason, properties):
        self.online = not reason.is_failure

    def on_disconnect(self, client, data, flags, reason, properties):
        self.online = False
        self.retry_at = time.monotonic() + RECONNECT

    def on_publish(self, client, data, mid, reason, properties):
        seq = self.waiting.pop(mid, None)
        # A reason from 128 on is a refusal.
        if seq is None or reason.value >= 128:
            raise SystemExit(f"{self.sensor}: acknowledgement {mid} with {reason}, which belongs to {seq}")
        self.fleet.acknowledged(self.sensor, seq)

    def publish(self):
        now = int(time.time() * 1000)
        value = 20 + self.seq % 100 / 10
        payload = f'{{"sensor_id":"{self.sensor}","ts":{now},"value":{value},"seq":{self.seq}}}'
        sent = self.client.publish(f"sensors/{self.sensor}/temperature", payload, qos=1)
        self.waiting[sent.mid] = self.seq
        self.seq += 1


class Fleet:
    def __init__(self, arguments):
        self.arguments = arguments
        self.selector = selectors.DefaultSelector()
        self.ledger = open(arguments.ledger, "wb")
        self.devices = [Device(self, number) for number in range(arguments.clients)]
        self.published = self.known = 0
        self.paused = False
        # Readings are due while the fleet is not paused.
        self.due = 0.0

    def watch(self, socket, device):
        self.selector.register(socket, selectors.EVENT_READ, device)

    def forget(self, socket):
        self.selector.unregister(socket)

    def writes(self, socket, device, wanted):
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self.selector.modify(socket, events, device)

    def acknowledged(self, sensor, seq):
        self.known += 1
        self.ledger.write(f"{sensor} {seq:08d}\n".encode())

    def pause(self, paused):
        self.paused = paused

    def publish(self, turn):
        """Hands what is due to the devices, the next one first; a device that is away or busy is passed over."""
        count = len(self.devices)
        for place in range(count):
            if self.published >= self.arguments.count or self.published >= self.due:
                return place
            device = self.devices[(turn + place) % count]
            while device.online and len(device.waiting) < WINDOW and self.published < min(self.due, self.arguments.count):
                device.publish()
                self.published += 1
                if device.seq % 4 == 0:
                    break
        return 0

    def run(self):
        said_connected = said_paused = False
        turn = 0
        then = housekeeping = time.monotonic()
        while self.known < self.arguments.count:
            for key, events in self.selector.select(0.005):
                if events & selectors.EVENT_READ:
                    key.data.client.loop_read()
                if events & selectors.EVENT_WRITE and key.data.client.socket():
                    key.data.client.loop_write()
            now = time.monotonic()
            if not self.paused:
                self.due = min(self.due + (now - then) * self.arguments.rate, self.published + self.arguments.rate)
                turn += self.publish(turn)
            then = now
            if now >= housekeeping:
                housekeeping = now + 0.1
                self.keep_house(now)
            self.ledger.flush()
            if not said_connected and all(device.online for device in self.devices):
                said_connected = True
                print("connected", flush=True)
            if self.paused and not said_paused and not any(device.waiting for device in self.devices):
                print("paused", flush=True)
            said_paused = self.paused and (said_paused or not any(device.waiting for device in self.devices))
        print(f"acknowledged {self.known}", flush=True)

    def keep_house(self, now):
        for device in self.devices:
            if device.client.socket() is not None:
                device.client.loop_misc()
            elif now >= device.retry_at:
                device.connect(self.arguments.host, self.arguments.port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=4000, help="readings per second of the fleet")
    parser.add_argument("--ledger", required=True)
    fleet = Fleet(parser.parse_args())
    signal.signal(signal.SIGUSR1, lambda *_: fleet.pause(True))
    signal.signal(signal.SIGUSR2, lambda *_: fleet.pause(False))
    fleet.run()


if __name__ == "__main__":
    main()
