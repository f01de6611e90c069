//! Colours. A chart is drawn with the colours for a light page, as attributes. On a dark screen the page's style replaces each
//! with its dark counterpart. So one drawing serves both, and it stays readable without the style.

use std::fmt::Write;

use plotters::style::RGBColor;

use crate::compare::Arm;

/// A colour for the light and for the dark page. The contrast is at least 4.5:1 for text and 3:1 for the rest.
#[derive(Clone, Copy)]
pub struct Colour {
    light: (u8, u8, u8),
    dark: (u8, u8, u8),
}

const fn colour(light: (u8, u8, u8), dark: (u8, u8, u8)) -> Colour {
    Colour { light, dark }
}

pub const INK: Colour = colour((0x1a, 0x1a, 0x1b), (0xe8, 0xe8, 0xe6));
pub const MUTED: Colour = colour((0x55, 0x55, 0x56), (0xb4, 0xb4, 0xb0));
pub const RULE: Colour = colour((0xd8, 0xd8, 0xd9), (0x3c, 0x3e, 0x42));
pub const APPLICATION: Colour = colour((0x2f, 0x6d, 0xb5), (0x7f, 0xb2, 0xec));
pub const COLLECTOR: Colour = colour((0xb8, 0x5c, 0x00), (0xf0, 0xb0, 0x60));
pub const BROKER: Colour = colour((0x4f, 0x78, 0x26), (0xa6, 0xd0, 0x70));
const PER_EVENT: Colour = colour((0x1b, 0x5f, 0xaa), (0x7c, 0xb4, 0xf5));
const GROUPED: Colour = colour((0x0b, 0x7a, 0x75), (0x5f, 0xd0, 0xc5));
const CORE: Colour = colour((0x8f, 0x5a, 0x00), (0xf0, 0xb3, 0x57));
const JETSTREAM: Colour = colour((0xb3, 0x26, 0x1e), (0xff, 0x8f, 0x87));
const SYNC_ALWAYS: Colour = colour((0x7a, 0x3e, 0x9d), (0xd0, 0xa0, 0xf0));
const SPOOLED: Colour = colour((0x6b, 0x4f, 0x2a), (0xd9, 0xb9, 0x8a));

const ALL: [Colour; 12] =
    [INK, MUTED, RULE, APPLICATION, COLLECTOR, BROKER, PER_EVENT, GROUPED, CORE, JETSTREAM, SYNC_ALWAYS, SPOOLED];

impl Colour {
    pub fn drawn(self) -> RGBColor {
        let (red, green, blue) = self.light;
        RGBColor(red, green, blue)
    }

    /// As in a drawing. Upper case, because CSS selectors compare attribute values exactly.
    pub fn hex(self) -> String {
        hex(self.light)
    }
}

fn hex((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

pub fn of_arm(arm: Arm) -> Colour {
    match arm {
        Arm::DirectPerEvent => PER_EVENT,
        Arm::DirectGrouped => GROUPED,
        Arm::CoreNats => CORE,
        Arm::Jetstream => JETSTREAM,
        Arm::JetstreamSyncAlways => SYNC_ALWAYS,
        Arm::Spooled => SPOOLED,
    }
}

/// The CSS that replaces the colours on a dark screen.
pub fn style() -> String {
    let mut rules = String::from("@media screen and (prefers-color-scheme: dark) {\n");
    for colour in ALL {
        let (drawn, dark) = (colour.hex(), hex(colour.dark));
        for attribute in ["fill", "stroke"] {
            // Writing to a string cannot fail.
            let _ = writeln!(rules, "  figure svg [{attribute}=\"{drawn}\"] {{ {attribute}: {dark}; }}");
        }
    }
    rules.push_str("}\n");
    rules
}
