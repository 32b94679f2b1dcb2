//! What a mapper is told, as messages of the interface.
//!
//! In: the devices and models of `protocols::kubeedge::dmi`. Out: protobuf messages. Must never leave out a part that the
//! mapper-framework takes for granted: it ends on a device without configuration, visitors or desired values.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Any;
use protocols::kubeedge::dmi::{DeviceProperty, Key, Mapped, Model, Word};
use protocols::message::DesiredOut;
use protocols::name::PropertyName;

use super::wire;

/// From one report of a device's state to the next, in milliseconds: the framework's own default is a second.
const STATES_MS: i64 = 10_000;

/// First part of the type of a packed message.
const TYPES: &str = "type.googleapis.com/google.protobuf.";

pub(super) fn model(key: &Key, model: &Model) -> wire::DeviceModel {
    let properties = model.properties.iter().map(|property| wire::ModelProperty {
        name: property.name.clone(),
        description: property.description.clone(),
        r#type: property.kind.to_owned(),
        access_mode: if property.writable { "ReadWrite" } else { "ReadOnly" }.to_owned(),
        minimum: property.minimum.clone(),
        maximum: property.maximum.clone(),
        unit: property.unit.clone(),
    });
    wire::DeviceModel {
        name: key.1.clone(),
        namespace: key.0.clone(),
        spec: Some(wire::DeviceModelSpec { properties: properties.collect() }),
    }
}

pub(super) fn device(mapped: &Mapped, wishes: &BTreeMap<PropertyName, DesiredOut>) -> wire::Device {
    let properties = mapped.properties(wishes).into_iter().map(|own| property(own, &mapped.named));
    let spec = wire::DeviceSpec {
        device_model_reference: mapped.model.clone(),
        protocol: Some(wire::ProtocolConfig {
            protocol_name: mapped.named.clone(),
            config_data: Some(customized(&mapped.config)),
        }),
        properties: properties.collect(),
    };
    wire::Device {
        name: mapped.key.1.clone(),
        namespace: mapped.key.0.clone(),
        spec: Some(spec),
        status: Some(wire::DeviceStatus { twins: Vec::new(), report_to_cloud: true, report_cycle: STATES_MS }),
    }
}

fn property(own: DeviceProperty, protocol: &str) -> wire::DeviceProperty {
    let mut metadata = BTreeMap::from([("type".to_owned(), own.kind.to_owned())]);
    if let Some(at) = own.desired_at {
        metadata.insert("timestamp".to_owned(), at.to_string());
    }
    wire::DeviceProperty {
        name: own.name.to_string(),
        desired: Some(wire::TwinProperty { value: own.desired, metadata }),
        visitors: Some(wire::VisitorConfig {
            protocol_name: protocol.to_owned(),
            config_data: Some(customized(&own.visitor)),
        }),
        report_cycle: own.cycle_ms,
        collect_cycle: own.cycle_ms,
        report_to_cloud: true,
    }
}

fn customized(words: &BTreeMap<String, Word>) -> wire::CustomizedValue {
    wire::CustomizedValue { data: words.iter().map(|(key, word)| (key.clone(), packed(word))).collect() }
}

/// The wrappers of google/protobuf/wrappers.proto are what prost has for the bare types: one field, numbered 1.
fn packed(word: &Word) -> Any {
    let (kind, value) = match word {
        Word::Text(text) => ("StringValue", text.encode_to_vec()),
        Word::Int32(number) => ("Int32Value", number.encode_to_vec()),
        Word::Int64(number) => ("Int64Value", number.encode_to_vec()),
        Word::Float(number) => ("FloatValue", number.encode_to_vec()),
        Word::Bool(value) => ("BoolValue", value.encode_to_vec()),
    };
    Any { type_url: format!("{TYPES}{kind}"), value }
}
