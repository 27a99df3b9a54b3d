//! Whole training steps against PyTorch (`golden/training/make.py`): the loss's parts, dA and dB of every linear map, the size of the step, for every
//! objective and knob; and curves of a hundred optimizer steps. The engine computes in f32, PyTorch in f64.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tiger_engine::train::{Advance, Job};
use tiger_engine::{
    AdvantageScale, BaseId, Baseline, Config, Group, Knobs, LengthNorm, Objective, Outcome, Recorded, Response, StepMetrics, TrainEvent,
    TrainRequest,
};
use tiger_formats::{Checkpoint, SafeTensors, peft};
use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterState, Model, Precision};
use tokio::sync::mpsc::unbounded_channel;

/// Largest relative error of a loss part, or what f32 leaves of 1.
const LOSS_TOLERANCE: f64 = 2e-6;
/// Largest relative error of one tensor's gradient: norm of the difference over norm of the reference.
const GRADIENT_TOLERANCE: f64 = 1e-5;
/// Largest relative error over a hundred steps. AdamW divides by the gradient's own size, so that what is noise in a small entry is a whole step.
const CURVE_TOLERANCE: f64 = 1e-3;
/// Weight of a step's gradient in AdamW's first moment, which is where a step from zero leaves it.
const FIRST_MOMENT: f32 = 0.1;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(golden("training").join(name)).unwrap()
}

/// One model for all tests of this file: 2 layers, hidden 32, vocabulary 64, f32.
static WORLD: LazyLock<(Cpu, Model)> = LazyLock::new(|| {
    let cpu = Cpu::new(1, None);
    let checkpoint = Checkpoint::open(&golden("objective/tiny")).unwrap();
    let model = Model::load(&cpu, &checkpoint, Precision::F32, &mut |_| {}).unwrap();
    (cpu, model)
});

fn adapter(name: &str) -> Adapter {
    let base = WORLD.1.architecture();
    let [config, weights] = ["adapter_config.json", "adapter_model.safetensors"].map(|file| read(&format!("adapters/{name}/{file}")));
    Adapter::from_peft(base, &peft::Adapter::from_bytes(&config, &weights, base).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).iter().map(|x| *x as u32).collect()
}

fn knobs(case: &Value) -> Knobs {
    let knobs = &case["knobs"];
    let text = |name: &str| knobs[name].as_str().unwrap_or("a number");
    Knobs {
        objective: match text("objective") {
            "tapered" => Objective::Tapered,
            "importance_sampling" => Objective::ImportanceSampling,
            "ppo" => Objective::Ppo,
            "sft" => Objective::Sft,
            other => panic!("{other}"),
        },
        baseline: match text("baseline") {
            "group_mean" => Baseline::GroupMean,
            "none" => Baseline::None,
            _ => Baseline::Value(number(&knobs["baseline"])),
        },
        advantage_scale: match text("advantage_scale") {
            "cap" => AdvantageScale::Cap,
            "none" => AdvantageScale::None,
            "group" => AdvantageScale::Group,
            other => panic!("{other}"),
        },
        length_norm: match text("length_norm") {
            "token" => LengthNorm::Token,
            "sequence" => LengthNorm::Sequence,
            "constant" => LengthNorm::Constant,
            other => panic!("{other}"),
        },
        clip_high: number(&knobs["clip_high"]),
        negative_floor: number(&knobs["negative_floor"]),
        kl_coefficient: number(&knobs["kl_coefficient"]),
        max_grad_norm: number(&case["max_grad_norm"]),
        learning_rate: 1e-3,
        target_kl: f64::INFINITY,
        kl_limit: f64::INFINITY,
        evaluate: false,
        ..Knobs::default()
    }
}

fn groups(case: &Value) -> Vec<Group> {
    let response = |r: &Value| Response {
        tokens: ids(&r["tokens"]),
        reward: number(&r["reward"]),
        recorded: r["recorded"]
            .is_array()
            .then(|| Recorded { logprobs: numbers(&r["recorded"]).iter().map(|q| *q as f32).collect(), staleness: 0 }),
    };
    let pairs = case["prompts"].as_array().unwrap().iter().zip(case["groups"].as_array().unwrap());
    pairs
        .map(|(prompt, group)| Group { prompt: ids(prompt), responses: group.as_array().unwrap().iter().map(response).collect() })
        .collect()
}

fn request(case: &Value, state: AdapterState, knobs: Knobs) -> TrainRequest {
    TrainRequest {
        base: BaseId("tiny".into()),
        account: 1,
        state,
        reference: case["parent"].as_str().map(|parent| Arc::new(adapter(parent))),
        dropout: number(&case["dropout"]) as f32,
        groups: groups(case),
        knobs,
    }
}

/// Everything in one micro-batch, all of it kept: it is what PyTorch does.
fn whole() -> Config {
    Config { micro_batch_tokens: 10_000, activation_bytes: u64::MAX, ..Config::default() }
}

fn run(request: TrainRequest, config: &Config) -> (Vec<StepMetrics>, Outcome) {
    let (sender, mut events) = unbounded_channel();
    let mut job = Job::new(request, sender, config);
    while job.advance(&WORLD.1, &WORLD.0) == Advance::Working {}
    let mut steps = Vec::new();
    loop {
        match events.try_recv().unwrap() {
            TrainEvent::Progress { metrics, .. } => steps.extend(metrics),
            TrainEvent::Done(outcome) => return (steps, *outcome),
            other => panic!("{other:?}"),
        }
    }
}

fn check_step(what: &str, got: &StepMetrics, want: &Value, tolerance: f64, parts: &[&str]) {
    for part in parts {
        let x = match *part {
            "loss" => got.loss,
            "policy_loss" => got.policy_loss,
            "kl_loss" => got.kl_loss,
            "kl_parent" => got.kl_parent,
            "kl_sampler" => got.kl_sampler,
            "entropy" => got.entropy,
            "grad_norm" => got.grad_norm,
            "step_scale" => got.step_scale,
            other => panic!("{other}"),
        };
        let y = number(&want[*part]);
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{what} {part}: {x}, PyTorch {y}");
    }
}

/// Every tensor's gradient beside PyTorch's, both in PEFT's layout.
fn check_gradient(name: &str, state: &AdapterState, expected: &SafeTensors<Vec<u8>>, clip: f64, tolerance: f64) {
    let mut gradient = state.adapter.clone();
    for (to, from) in gradient.tensors_mut().zip(&state.moments.first) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from / FIRST_MOMENT);
    }
    let mut compared = 0;
    for ((layer, module), pair) in gradient.to_peft().tensors {
        for (which, got) in [("A", pair.a), ("B", pair.b)] {
            let key = format!("{name}/base_model.model.model.layers.{layer}.{}.lora_{which}.weight", module.path());
            let want = expected.tensor(&key).unwrap_or_else(|| panic!("no {key}")).to_f32().unwrap();
            assert_eq!(got.len(), want.len(), "{key}");
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let reference = norm(&mut want.iter().map(|w| f64::from(*w) * clip));
            let error = norm(&mut got.iter().zip(&want).map(|(g, w)| f64::from(*g) - f64::from(*w) * clip));
            assert!(reference > 0.0 && error <= tolerance * reference, "{key}: error {error:e} of {reference:e}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 2 * 7, "{name}: A and B of every linear map");
}

#[test]
fn a_step_is_pytorchs_for_every_objective_and_knob() {
    let cases: Vec<Value> = serde_json::from_slice(&read("cases.json")).unwrap();
    let gradients = SafeTensors::from_bytes("gradients.safetensors", read("gradients.safetensors")).unwrap();
    assert!(cases.len() >= 30);
    for case in &cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let knobs = Knobs { seed: case["seed"].as_u64().unwrap(), ..knobs(case) };
        let start = AdapterState::new(adapter(case["adapter"].as_str().unwrap()));
        let train = |config: &Config| run(request(case, start.clone(), knobs.clone()), config);
        let (steps, outcome) = train(&whole());
        for (got, want) in outcome.metrics.responses.iter().zip(numbers(&expected["advantages"])) {
            assert!((got.advantage - want).abs() < 1e-12, "{name}: advantage {}, PyTorch {want}", got.advantage);
        }
        check_step(name, &steps[0], expected, LOSS_TOLERANCE, &["loss", "policy_loss", "kl_sampler", "entropy", "grad_norm", "step_scale"]);
        if knobs.kl_coefficient > 0.0 {
            check_step(name, &steps[0], expected, LOSS_TOLERANCE, &["kl_loss", "kl_parent"]);
        }
        let clip = (knobs.max_grad_norm / number(&expected["grad_norm"])).min(1.0);
        let state = outcome.state.unwrap();
        check_gradient(name, &state, &gradients, clip, GRADIENT_TOLERANCE);
        // Layers computed again: the same bits.
        assert_eq!(train(&Config { activation_bytes: 0, ..whole() }).1.state.as_ref(), Some(&state), "{name}, checkpointed");
        // In micro-batches of a sequence each: other sums of the same numbers. The mask of dropout is another one then.
        if number(&case["dropout"]) == 0.0 {
            let (steps, outcome) = train(&Config { micro_batch_tokens: 1, ..whole() });
            check_step(name, &steps[0], expected, LOSS_TOLERANCE, &["loss", "entropy", "grad_norm", "step_scale"]);
            check_gradient(name, &outcome.state.unwrap(), &gradients, clip, GRADIENT_TOLERANCE);
        }
    }
}

#[test]
fn a_hundred_steps_are_pytorchs() {
    let curves: Vec<Value> = serde_json::from_slice(&read("curves.json")).unwrap();
    assert_eq!(curves.len(), 3);
    for curve in &curves {
        let name = curve["name"].as_str().unwrap();
        let [calls, steps_a_call] = ["calls", "steps_a_call"].map(|count| curve[count].as_u64().unwrap());
        let mut state = AdapterState::new(adapter(curve["adapter"].as_str().unwrap()));
        let mut got = Vec::new();
        for call in 0..calls {
            let learning_rate = number(&curve["learning_rate"]);
            let knobs = Knobs { steps: steps_a_call as u32, learning_rate, seed: call, ..knobs(curve) };
            let (steps, outcome) = run(request(curve, state, knobs), &whole());
            got.extend(steps);
            state = outcome.state.unwrap();
        }
        let want = curve["steps"].as_array().unwrap();
        assert_eq!((got.len(), want.len()), (100, 100));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let parts = ["loss", "policy_loss", "entropy", "grad_norm", "step_scale"];
            check_step(&format!("{name}, step {i}"), got, want, CURVE_TOLERANCE, &parts);
            if number(&curve["knobs"]["kl_coefficient"]) > 0.0 {
                check_step(&format!("{name}, step {i}"), got, want, CURVE_TOLERANCE, &["kl_loss"]);
            }
        }
        let moved = number(&want[0]["loss"]) - number(&want[99]["loss"]);
        assert!(moved > 0.02, "{name}: a curve that goes nowhere shows nothing ({moved})");
    }
}
