//! Each rule by its behaviour, then what holds of every decision.

mod authorise;
mod confirm;
mod defects;
mod fixture;
mod gate;
mod gateways;
mod health;
mod identity;
mod instances;
mod properties;
mod removal;
mod replay;
mod size;
mod upstream;
