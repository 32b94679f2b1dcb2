//! The contents page of the tests: one module for each promise.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests: what is not as expected ends them")]

/// Twins in step through every fault.
mod faults;
/// The floors and rooms of the house.
mod house;
/// The installation most tests use.
mod installation;

/// A gateway with a radio, in the rig and beside it.
mod ble_gateway;
/// Every Bluetooth transport keeps to one suite.
mod ble_transport;
/// Twins in step with another broker.
mod bridge;
/// AWS, Azure and ThingsBoard as their documentation describes them.
mod bridge_clouds;
/// A gateway as a mapper of a KubeEdge edge node.
mod bridge_kubeedge;
/// The broker as mosquitto's clients and Paho see it.
mod broker_peers;
/// The commands as people type them.
mod commands;
/// `kill -9` loses nothing that was acknowledged.
mod durability;
/// A real Home Assistant, from discovery to the device.
mod home_assistant;
/// KubeEdge's device topics against recordings of edgecore.
mod kubeedge;
/// Kubernetes files as they stand, and mappers that are no part of the program.
mod kubeedge_files;
/// KubeEdge's device mapper interface with a mapper on Google's gRPC.
mod kubeedge_mapper;
/// Devices with every kind of fault: no wrong value, and each fault counted.
mod modbus_faults;
/// pymodbus and libmodbus through the whole gateway.
mod modbus_peers;
/// pymodbus on the other Modbus wires: ASCII, datagrams, TLS.
mod modbus_wires;
/// Demo, simulator, reload, restart, mappers apart.
mod running;
/// pyserial, pynmea2 and socat through the whole gateway, and every shipped serial profile as the simulator plays it.
mod serial_peers;
/// A service of systemd: ready, reload, stop, and pings that mean something.
mod service;
/// Every profile, sample and example in the documents checks and passes its own tests.
mod shipped;
/// Serial and Bluetooth profiles as the simulator plays them.
mod simulated;
/// Wrong input gets one clear message.
mod wrong_input;
