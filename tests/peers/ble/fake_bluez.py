#!/usr/bin/env python3
"""A stand-in for bluetoothd on a private bus, for faults that the real one shows only when nobody looks.

usage: DBUS_SYSTEM_BUS_ADDRESS=… fake_bluez.py FILE     writes the TCP port it takes orders on into FILE when it is ready

Written from the documented D-Bus interfaces of BlueZ; it proves nothing about BlueZ. The devices and the orders are those of
air.py, and besides:
  {"op": "unplug"} {"op": "plug"}            the adapter goes and comes
  {"op": "die"} {"op": "live"}               bluetoothd leaves the bus and is there again
  {"op": "fault", "method": "Connect", "error": "org.bluez.Error.Failed", "text": "…", "times": 1}
  {"op": "hang", "method": "ReadValue", "times": 1}                the method never answers
  {"op": "deaf", "on": true}                 it says that it scans, and hears nothing, until it is switched off and on
  {"op": "end_scan"}                         the scan ends by itself
  {"op": "no_monitors"}                      passive scans are refused from now on
  {"op": "calls"}                            what was called since the last time
"""
import asyncio
import json
import os
import sys

from dbus_fast import BusType, Message, MessageType, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_property, method

RO = PropertyAccess.READ
HCI = "/org/bluez/hci0"
TWIN, LOCK = "F0:F1:F2:F3:F4:F5", "F0:F1:F2:F3:F4:F8"
PASSKEY = 123456


def path_of(address):
    return f"{HCI}/dev_{address.replace(':', '_')}"


def own(number):
    return f"50db505c-8ac4-4738-8448-3b1d9cc09c{number:02x}"


def sig(number):
    return f"0000{number:04x}-0000-1000-8000-00805f9b34fb"


class World:
    def __init__(self):
        self.bus = None
        self.calls, self.faults, self.hangs = [], {}, {}
        self.monitors, self.is_deaf, self.takes_monitors = {}, False, True
        self.devices, self.speakers, self.paired = {}, {}, set()
        self.found, self.watchers = set(), []
        self.agent = None
        self.value, self.sender = b"initial", None
        self.adapter = None

    async def step(self, name):
        """What every method does first: it is noted, and it may fail or hang."""
        self.calls.append(name)
        if self.hangs.get(name, 0) > 0:
            self.hangs[name] -= 1
            await asyncio.sleep(3600)
        if fault := self.faults.get(name):
            fault["times"] -= 1
            if fault["times"] <= 0:
                del self.faults[name]
            raise DBusError(fault["error"], fault["text"])

    async def live(self):
        self.bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        self.bus.add_message_handler(self.who)
        self.bus.export("/org/bluez", AgentManager(self))
        self.plug()
        await self.bus.request_name("org.bluez")

    def who(self, message):
        if message.message_type == MessageType.METHOD_CALL:
            self.sender = message.sender

    async def die(self):
        for task in [t for d in self.devices.values() for t in d.tasks]:
            task.cancel()
        self.devices, self.monitors, self.adapter, self.agent = {}, {}, None, None
        self.bus.disconnect()

    def plug(self):
        if self.adapter is None:
            self.adapter = Adapter(self)
            self.bus.export(HCI, Monitors(self))
            self.bus.export(HCI, self.adapter)

    def unplug(self):
        for address in list(self.devices):
            self.forget(address)
        self.monitors = {}
        if self.adapter is not None:
            self.bus.unexport(HCI)
            self.adapter = None

    def forget(self, address):
        device = self.devices.pop(address)
        device.down()
        self.bus.unexport(path_of(address))

    def fits(self, structures):
        patterns = [p for found in self.monitors.values() for p in found]
        return any(kind == k and data[start:start + len(c)] == bytes(c)
                   for kind, data in structures for start, k, c in patterns)

    def heard(self, address, data, connectable=None):
        """One advertisement off the air, to whoever listens."""
        structures, at = [], 0
        while at + 1 < len(data) and data[at]:
            structures.append((data[at + 1], data[at + 2:at + 1 + data[at]]))
            at += 1 + data[at]
        adapter = self.adapter
        if adapter is None or not adapter.powered or self.is_deaf:
            return
        if not adapter.discovering and not self.fits(structures):
            return
        said = {"RSSI": -60}
        for kind, value in structures:
            if kind == 0x16:
                said["ServiceData"] = {sig(int.from_bytes(value[:2], "little")): Variant("ay", value[2:])}
            elif kind == 0xFF:
                said["ManufacturerData"] = {int.from_bytes(value[:2], "little"): Variant("ay", value[2:])}
            elif kind == 0x09:
                said["Name"] = value.decode()
        device = self.devices.get(address)
        if device is None:
            device = self.devices[address] = Remote(self, address, said)
            self.bus.export(path_of(address), device)
        else:
            if not adapter.discovering:
                # A passive scan repeats nothing.
                said = {name: value for name, value in said.items() if device.said.get(name) != value}
            device.said.update(said)
            if said:
                device.emit_properties_changed(said)
        if not adapter.discovering and address not in self.found:
            self.found.add(address)
            for sender, path in self.watchers:
                asyncio.create_task(self.bus.call(Message(
                    destination=sender, path=path, interface="org.bluez.AdvertisementMonitor1", member="DeviceFound",
                    signature="o", body=[path_of(address)])))


class Adapter(ServiceInterface):
    def __init__(self, world):
        super().__init__("org.bluez.Adapter1")
        self.world, self.powered, self.discovering = world, True, False

    @dbus_property(access=RO)
    def Address(self) -> "s":
        return "F6:F7:F8:F9:FA:01"

    @dbus_property()
    def Powered(self) -> "b":
        return self.powered

    @Powered.setter
    def Powered(self, on: "b"):
        self.world.calls.append(f"Powered={on}")
        if "Powered" in self.world.faults:
            fault = self.world.faults["Powered"]
            raise DBusError(fault["error"], fault["text"])
        if not on:
            self.world.is_deaf = self.discovering = False
        self.powered = on
        self.emit_properties_changed({"Powered": on})

    @dbus_property(access=RO)
    def Discovering(self) -> "b":
        return self.discovering

    def turn(self, on):
        self.discovering = on
        self.emit_properties_changed({"Discovering": on})

    @method()
    async def SetDiscoveryFilter(self, wanted: "a{sv}"):
        await self.world.step("SetDiscoveryFilter")

    @method()
    async def StartDiscovery(self):
        await self.world.step("StartDiscovery")
        if self.discovering:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        self.turn(True)

    @method()
    async def StopDiscovery(self):
        await self.world.step("StopDiscovery")
        if not self.discovering:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        self.turn(False)


class Monitors(ServiceInterface):
    def __init__(self, world):
        super().__init__("org.bluez.AdvertisementMonitorManager1")
        self.world = world

    @method()
    async def RegisterMonitor(self, application: "o"):
        sender = self.world.sender
        await self.world.step("RegisterMonitor")
        if not self.world.takes_monitors:
            raise DBusError("org.bluez.Error.Failed", "not supported")
        asyncio.create_task(self.read(sender, application))

    @method()
    async def UnregisterMonitor(self, application: "o"):
        await self.world.step("UnregisterMonitor")
        self.world.monitors.pop(application, None)
        self.world.watchers, self.world.found = [], set()

    async def read(self, sender, application):
        answer = await self.world.bus.call(Message(
            destination=sender, path=application, interface="org.freedesktop.DBus.ObjectManager",
            member="GetManagedObjects"))
        found = []
        for path, interfaces in answer.body[0].items():
            if monitor := interfaces.get("org.bluez.AdvertisementMonitor1"):
                assert monitor["Type"].value == "or_patterns"
                found += monitor["Patterns"].value
                self.world.watchers.append((sender, path))
                await self.world.bus.call(Message(
                    destination=sender, path=path, interface="org.bluez.AdvertisementMonitor1", member="Activate"))
        self.world.monitors[application] = found


class AgentManager(ServiceInterface):
    def __init__(self, world):
        super().__init__("org.bluez.AgentManager1")
        self.world = world

    @method()
    async def RegisterAgent(self, path: "o", capability: "s"):
        sender = self.world.sender
        await self.world.step("RegisterAgent")
        self.world.agent = (sender, path)

    @method()
    async def RequestDefaultAgent(self, path: "o"):
        await self.world.step("RequestDefaultAgent")

    @method()
    async def UnregisterAgent(self, path: "o"):
        await self.world.step("UnregisterAgent")


class Remote(ServiceInterface):
    def __init__(self, world, address, said):
        super().__init__("org.bluez.Device1")
        self.world, self.address, self.said = world, address, said
        self.connected = self.resolved = self.trusted = False
        self.paths, self.tasks = [], []

    @dbus_property(access=RO)
    def Address(self) -> "s":
        return self.address

    @dbus_property(access=RO)
    def AddressType(self) -> "s":
        return "random"

    @dbus_property(access=RO)
    def Adapter(self) -> "o":
        return HCI

    @dbus_property(access=RO)
    def Name(self) -> "s":
        return self.said.get("Name", "")

    @dbus_property(access=RO)
    def RSSI(self) -> "n":
        return self.said["RSSI"]

    @dbus_property(access=RO)
    def ServiceData(self) -> "a{sv}":
        return self.said.get("ServiceData", {})

    @dbus_property(access=RO)
    def ManufacturerData(self) -> "a{qv}":
        return self.said.get("ManufacturerData", {})

    @dbus_property(access=RO)
    def Connected(self) -> "b":
        return self.connected

    @dbus_property(access=RO)
    def ServicesResolved(self) -> "b":
        return self.resolved

    @dbus_property(access=RO)
    def Paired(self) -> "b":
        return self.address in self.world.paired

    @dbus_property()
    def Trusted(self) -> "b":
        return self.trusted

    @Trusted.setter
    def Trusted(self, on: "b"):
        self.trusted = on

    @method()
    async def Connect(self):
        await self.world.step("Connect")
        if self.world.adapter.discovering:
            self.world.calls.append("Connect while scanning")
        self.connected = True
        self.emit_properties_changed({"Connected": True})
        asyncio.create_task(self.resolve())

    async def resolve(self):
        await asyncio.sleep(0.05)
        self.services()
        self.resolved = True
        self.emit_properties_changed({"ServicesResolved": True})

    @method()
    async def Disconnect(self):
        await self.world.step("Disconnect")
        self.down()

    def down(self):
        for task in self.tasks:
            task.cancel()
        for path in self.paths:
            self.world.bus.unexport(path)
        was, self.paths, self.tasks, self.connected, self.resolved = self.connected, [], [], False, False
        if was:
            self.emit_properties_changed({"ServicesResolved": False, "Connected": False})

    @method()
    async def Pair(self):
        await self.world.step("Pair")
        if self.address in self.world.paired:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        if self.world.agent is None:
            raise DBusError("org.bluez.Error.AuthenticationFailed", "Authentication Failed")
        sender, path = self.world.agent
        ask = "RequestPasskey" if self.address == LOCK else "RequestAuthorization"
        answer = await self.world.bus.call(Message(
            destination=sender, path=path, interface="org.bluez.Agent1", member=ask, signature="o",
            body=[path_of(self.address)]))
        if answer.message_type == MessageType.ERROR or ask == "RequestPasskey" and answer.body[0] != PASSKEY:
            raise DBusError("org.bluez.Error.AuthenticationFailed", "Authentication Failed")
        self.world.paired.add(self.address)
        self.emit_properties_changed({"Paired": True})

    def services(self):
        base = path_of(self.address)

        def put(number, uuid, characteristics):
            service = f"{base}/service{number:04x}"
            self.world.bus.export(service, Service(uuid, base))
            self.paths.append(service)
            for offset, (uuid, flags, kind) in enumerate(characteristics):
                path = f"{service}/char{number + 1 + 2 * offset:04x}"
                self.world.bus.export(path, Characteristic(self, uuid, service, flags, kind))
                self.paths.append(path)

        if self.address == TWIN:
            put(0x01, sig(0x180F), [(sig(0x2A19), ["read"], "battery")])
            put(0x10, sig(0x180D), [(sig(0x2A37), ["notify"], "heart")])
            put(0x20, own(0xC5), [(own(0xC6), ["read", "write"], "value"), (own(0xC7), ["read"], "secret"),
                                  (own(0xC8), ["read"], "refuses")])
        elif self.address == LOCK:
            put(0x20, own(0xD5), [(own(0xD6), ["read", "write"], "secret")])


class Service(ServiceInterface):
    def __init__(self, uuid, device):
        super().__init__("org.bluez.GattService1")
        self.uuid, self.device = uuid, device

    @dbus_property(access=RO)
    def UUID(self) -> "s":
        return self.uuid

    @dbus_property(access=RO)
    def Primary(self) -> "b":
        return True

    @dbus_property(access=RO)
    def Device(self) -> "o":
        return self.device


class Characteristic(ServiceInterface):
    def __init__(self, device, uuid, service, flags, kind):
        super().__init__("org.bluez.GattCharacteristic1")
        self.device, self.uuid, self.service, self.flags, self.kind = device, uuid, service, flags, kind
        self.value, self.heart = b"", 60

    @dbus_property(access=RO)
    def UUID(self) -> "s":
        return self.uuid

    @dbus_property(access=RO)
    def Service(self) -> "o":
        return self.service

    @dbus_property(access=RO)
    def Flags(self) -> "as":
        return self.flags

    @dbus_property(access=RO)
    def Value(self) -> "ay":
        return self.value

    @method()
    async def ReadValue(self, options: "a{sv}") -> "ay":
        world = self.device.world
        await world.step("ReadValue")
        match self.kind:
            case "battery":
                return bytes([77])
            case "value":
                return world.value
            case "secret" if self.device.address in world.paired:
                return b"secret-value" if self.device.address == TWIN else b"unlocked"
            case "secret":
                raise DBusError("org.bluez.Error.Failed", "Operation failed with ATT error: 0x0f")
        raise DBusError("org.bluez.Error.Failed", "Operation failed with ATT error: 0x80")

    @method()
    async def WriteValue(self, value: "ay", options: "a{sv}"):
        await self.device.world.step("WriteValue")
        self.device.world.value = bytes(value)

    @method()
    async def StartNotify(self):
        await self.device.world.step("StartNotify")

        async def beat():
            while True:
                await asyncio.sleep(0.2)
                self.heart = 60 + (self.heart - 59) % 120
                self.value = bytes([0, self.heart])
                self.emit_properties_changed({"Value": self.value})

        self.device.tasks.append(asyncio.create_task(beat()))


class Desk:
    def __init__(self, world):
        self.world = world
        self.speak("names", TWIN, b"\x0c\x09bumble-twin", 0.2)
        self.speak("names", LOCK, b"\x0c\x09bumble-lock", 0.2)

    def speak(self, _, address, data, pause):
        async def run():
            while True:
                if self.world.bus and self.world.bus.connected:
                    self.world.heard(address, b"\x02\x01\x06" + data)
                await asyncio.sleep(pause)

        if old := self.world.speakers.pop(address, None):
            old.cancel()
        self.world.speakers[address] = asyncio.create_task(run())

    async def order(self, order):
        world = self.world
        match order["op"]:
            case "advertise":
                self.speak("", order["address"], bytes.fromhex(order["data"]), order.get("every_ms", 200) / 1000)
            case "hush":
                if task := world.speakers.pop(order["address"], None):
                    task.cancel()
            case "value":
                return {"value": world.value.hex()}
            case "drop":
                for device in list(world.devices.values()):
                    device.down()
            case "forget":
                for address in list(world.devices):
                    world.forget(address)
            case "unplug":
                world.unplug()
            case "plug":
                world.plug()
            case "die":
                await world.die()
            case "live":
                await world.live()
            case "fault":
                world.faults[order["method"]] = {"times": 1, **order}
            case "hang":
                world.hangs[order["method"]] = order.get("times", 1)
            case "deaf":
                world.is_deaf = order["on"]
            case "end_scan":
                world.adapter.turn(False)
            case "no_monitors":
                world.takes_monitors = False
            case "calls":
                calls, world.calls = world.calls, []
                return {"calls": calls}
            case other:
                raise ValueError(f"no order {other}")
        return {}

    async def serve(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = {"ok": True, **await self.order(json.loads(line))}
            except Exception as error:
                answer = {"ok": False, "error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()


async def main():
    world = World()
    await world.live()
    desk = Desk(world)
    server = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(port))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    await server.serve_forever()


asyncio.run(main())
