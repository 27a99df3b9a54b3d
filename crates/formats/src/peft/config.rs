//! `adapter_config.json`: which modules are adapted, each with its rank and scale, exactly as PEFT reads it.
//! Whatever else it may ask for is refused by name. Does not know the weights.

use std::collections::{BTreeMap, BTreeSet};

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::{CONFIG_FILE, MAX_ALPHA, MAX_RANK};
use crate::architecture::Architecture;
use crate::error::{FormatError, quoted};
use crate::fields::{Fields, parse_object};
use crate::modules::Module;

/// Most entries of a pattern or of `target_modules`: every linear map of the deepest models named one by one.
const MAX_ENTRIES: usize = 1024;
/// Longest pattern, bytes; with the next bound, every one is compiled in microseconds.
const MAX_PATTERN_BYTES: usize = 512;
/// Size of a compiled pattern, bytes.
const MAX_COMPILED_BYTES: usize = 64 << 10;
/// Switches that would adapt something else than weights of linear maps by B·A.
const FOREIGN_SWITCHES: [&str; 4] = ["use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"];
/// Fields that would, when they hold anything.
const FOREIGN_FIELDS: [&str; 13] = [
    "modules_to_save",
    "layers_to_transform",
    "exclude_modules",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "use_bdlora",
    "ensure_weight_tying",
];
/// Initialisations that leave the base's weights as they are; the others mean nothing without what they changed there.
const HARMLESS_INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Rank and scale of one adapted module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub(super) rank: usize,
    /// alpha / rank, or alpha / √rank.
    pub(super) scale: f64,
}

/// What the file says.
pub(super) struct Config {
    /// Rank of modules without one of their own.
    pub(super) rank: usize,
    alpha: f64,
    rslora: bool,
    /// Rank and scale of every linear map, were it adapted; `None` when no pattern is given.
    parts: Option<BTreeMap<(usize, Module), Part>>,
    /// Adapted modules, when they are listed; else the tensors say it.
    pub(super) listed: Option<BTreeSet<(usize, Module)>>,
}

impl Config {
    pub(super) fn parse(bytes: &[u8], base: &Architecture) -> Result<Config, FormatError> {
        let map = parse_object(CONFIG_FILE, bytes)?;
        let fields = Fields::new(CONFIG_FILE, &map);
        refuse_foreign(&fields)?;
        let rank = fields.required_integer("r", 1..=MAX_RANK)?;
        let alpha = fields.required_number("lora_alpha", 0.0..=MAX_ALPHA)?;
        let rslora = fields.flag("use_rslora")? == Some(true);
        let listed = match fields.get("target_modules") {
            Some(Value::Array(list)) => Some(targets(&fields, list, base)?),
            // A pattern or "all-linear": the tensors say what it matched.
            _ => fields.text("target_modules")?.and(None),
        };
        let mut config = Config { rank, alpha, rslora, parts: None, listed };
        let ranks = patterns(&fields, "rank_pattern", 1.0..=MAX_RANK as f64)?;
        let alphas = patterns(&fields, "alpha_pattern", 0.0..=MAX_ALPHA)?;
        if let Some(broken) = ranks.iter().find(|(_, rank)| rank.fract() != 0.0) {
            return Err(fields.invalid("rank_pattern", format!("has the rank {}, must be an integer", broken.1)));
        }
        if !ranks.is_empty() || !alphas.is_empty() {
            let maps = (0..base.layers).flat_map(|layer| Module::ALL.map(|module| (layer, module)));
            let part = |(layer, module)| {
                let name = module_name(layer, module);
                let find = |list: &[(Regex, f64)]| list.iter().find(|(key, _)| key.is_match(name.as_bytes())).map(|(_, value)| *value);
                let rank = find(&ranks).map_or(rank, |rank| rank as usize);
                ((layer, module), config.part_of(rank, find(&alphas).unwrap_or(alpha)))
            };
            config.parts = Some(maps.map(part).collect());
        }
        Ok(config)
    }

    fn part_of(&self, rank: usize, alpha: f64) -> Part {
        let rank_as = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Part { rank, scale: alpha / rank_as }
    }

    /// Rank and scale of a module, if it is adapted.
    pub(super) fn part(&self, layer: usize, module: Module) -> Part {
        let own = self.parts.as_ref().and_then(|parts| parts.get(&(layer, module)).copied());
        own.unwrap_or_else(|| self.part_of(self.rank, self.alpha))
    }

    /// Alpha of an adapter of rank `rank` whose scale is this file's, and that scale. A file that scales by 0 where no pattern says
    /// otherwise gets the scale 1, for 0 could not be a factor of anything.
    pub(super) fn scale_at(&self, rank: usize) -> Result<(f32, f64), FormatError> {
        let scale = self.part_of(self.rank, self.alpha).scale;
        let alpha = if rank == self.rank && !self.rslora { self.alpha } else { scale * rank as f64 };
        if alpha as f32 == 0.0 {
            return Ok((rank as f32, 1.0));
        }
        if alpha > MAX_ALPHA {
            let problem = format!("is {}, which is {alpha} at rank {rank}; at most {MAX_ALPHA:e} is allowed", self.alpha);
            return Err(FormatError::invalid(CONFIG_FILE, "lora_alpha", problem));
        }
        Ok((alpha as f32, scale))
    }
}

/// As PEFT names a module that it matches patterns with.
fn module_name(layer: usize, module: Module) -> String {
    format!("model.layers.{layer}.{}", module.path())
}

fn refuse_foreign(fields: &Fields<'_>) -> Result<(), FormatError> {
    match fields.text("peft_type")? {
        Some("LORA") => {}
        other => return Err(fields.unsupported("peft_type", quoted(other.unwrap_or("null")), "LORA")),
    }
    let bias = fields.text("bias")?.unwrap_or("none");
    if bias != "none" {
        return Err(fields.unsupported("bias", quoted(bias), "none"));
    }
    for field in FOREIGN_SWITCHES {
        if fields.flag(field)? == Some(true) {
            return Err(fields.unsupported(field, "true", "false"));
        }
    }
    for field in FOREIGN_FIELDS {
        let empty = match fields.get(field) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Object(o)) => o.is_empty(),
            Some(Value::Array(a)) => a.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(fields.unsupported(field, "a value", "null or empty"));
        }
    }
    if !matches!(fields.get("init_lora_weights"), None | Some(Value::Bool(_))) {
        let found = fields.text("init_lora_weights")?.unwrap_or_default();
        if !HARMLESS_INITIALISATIONS.contains(&found) {
            let supported = format!("true, false, {}", HARMLESS_INITIALISATIONS.join(", "));
            return Err(fields.unsupported("init_lora_weights", quoted(found), &supported));
        }
    }
    Ok(())
}

/// `rank_pattern` or `alpha_pattern`, in order: the first that matches the end of a module's name counts, as in PEFT.
fn patterns(fields: &Fields<'_>, field: &str, range: std::ops::RangeInclusive<f64>) -> Result<Vec<(Regex, f64)>, FormatError> {
    let list = match fields.get(field) {
        None => return Ok(Vec::new()),
        Some(Value::Object(list)) => list,
        Some(_) => return Err(fields.invalid(field, "must be an object of numbers by module, or null")),
    };
    if list.len() > MAX_ENTRIES {
        return Err(fields.invalid(field, format!("has {} entries, at most {MAX_ENTRIES} are allowed", list.len())));
    }
    let entry = |(key, value): (&String, &Value)| {
        let value = value.as_f64().filter(|value| range.contains(value)).ok_or_else(|| {
            let wanted = format!("must be a number from {} to {}", range.start(), range.end());
            fields.invalid(field, format!("gives {} the value {}; it {wanted}", quoted(key), quoted(&value.to_string())))
        })?;
        let mut builder = RegexBuilder::new(&format!(r"^(?:(?:.*\.)?(?:{key}))$"));
        builder.unicode(false).size_limit(MAX_COMPILED_BYTES);
        let built = if key.len() > MAX_PATTERN_BYTES { None } else { builder.build().ok() };
        let supported = format!("a name, or a regular expression without look-around of at most {MAX_PATTERN_BYTES} bytes");
        Ok((built.ok_or_else(|| fields.unsupported(field, quoted(key), &supported))?, value))
    };
    list.iter().map(entry).collect()
}

/// The modules whose names end with a listed one. An entry that names none of them adapts something else.
fn targets(fields: &Fields<'_>, list: &[Value], base: &Architecture) -> Result<BTreeSet<(usize, Module)>, FormatError> {
    if list.len() > MAX_ENTRIES {
        return Err(fields.invalid("target_modules", format!("has {} entries, at most {MAX_ENTRIES} are allowed", list.len())));
    }
    let mut found = BTreeSet::new();
    for entry in list {
        let maps = (0..base.layers).flat_map(|layer| Module::ALL.map(|module| (layer, module)));
        let ends = |(layer, module): &(usize, Module)| {
            let (name, Some(entry)) = (module_name(*layer, *module), entry.as_str()) else { return false };
            name.strip_suffix(entry).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let mut matched = maps.filter(ends).peekable();
        if matched.peek().is_none() {
            let supported = Module::ALL.map(Module::name).join(", ");
            return Err(fields.unsupported("target_modules", quoted(&entry.to_string()), &supported));
        }
        found.extend(matched);
    }
    Ok(found)
}
