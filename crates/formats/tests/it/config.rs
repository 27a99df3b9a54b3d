//! `config.json`: families, both spellings of rotary parameters, and refusals that name field and value.

use serde_json::{Value, json};
use tiger_formats::{Architecture, ModelConfig, Rope, RopeScaling};

use crate::support::{architecture, llama_config, refuses, with, without};

fn parse(config: &Value) -> Result<ModelConfig, tiger_formats::FormatError> {
    ModelConfig::parse("config.json", config.to_string().as_bytes())
}

#[test]
fn a_llama_configuration_is_read_whole() {
    let config = parse(&llama_config()).unwrap();
    let expected = Architecture {
        hidden: 8,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 2,
        ffn: 12,
        vocab: 16,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        context_length: 64,
        tied: false,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
    };
    assert_eq!(config.architecture, expected);
    assert_eq!((config.declared_tied, config.bos_id, config.eos_ids), (Some(false), Some(1), vec![2, 3]));
}

#[test]
fn absent_fields_take_the_family_defaults() {
    let mut config = llama_config();
    for field in [
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "tie_word_embeddings",
        "hidden_act",
        "architectures",
        "bos_token_id",
        "eos_token_id",
    ] {
        config = without(&config, field);
    }
    let parsed = parse(&config).unwrap();
    assert_eq!((parsed.declared_tied, parsed.bos_id, parsed.eos_ids.len()), (None, None, 0));
    let a = parsed.architecture;
    assert_eq!((a.kv_heads, a.context_length, a.norm_eps, a.rope.theta, a.tied), (4, 2048, 1e-6, 10_000.0, false));
    let context = |family: &str| architecture(&with(&config, json!({"model_type": family}))).context_length;
    // Mistral's published default is a window of 4096 tokens.
    assert_eq!((context("mistral"), context("qwen2"), context("qwen3")), (4096, 32_768, 32_768));
    let head_dim = |family: &str| architecture(&without(&with(&config, json!({"model_type": family})), "head_dim")).head_dim;
    assert_eq!((head_dim("llama"), head_dim("qwen2"), head_dim("qwen3")), (2, 2, 128));
}

#[test]
fn norms_of_heads_follow_the_family_and_have_tensors() {
    let of = |family: &str| architecture(&with(&without(&llama_config(), "architectures"), json!({"model_type": family, "head_dim": 6})));
    let (llama, qwen3) = (of("llama"), of("qwen3"));
    assert_eq!(qwen3, Architecture { qk_norm: true, ..llama.clone() });
    // Two norms of 6 in each of two layers.
    assert_eq!(qwen3.parameters(), llama.parameters() + 24);
    let tensors = |a: &Architecture| tiger_formats::modules::required_tensors(a);
    let more: Vec<_> = tensors(&qwen3).into_iter().filter(|tensor| !tensors(&llama).contains(tensor)).collect();
    let named = |layer: usize, which: &str| (format!("model.layers.{layer}.self_attn.{which}_norm.weight"), vec![6]);
    assert_eq!(more, [named(0, "q"), named(0, "k"), named(1, "q"), named(1, "k")]);
    for a in [&llama, &qwen3] {
        let values: usize = tensors(a).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(a.parameters(), values as u64);
    }
}

#[test]
fn biases_follow_the_family() {
    let biases = |changes: Value| {
        let a = architecture(&without(&with(&llama_config(), changes), "architectures"));
        (a.qkv_bias, a.o_bias, a.mlp_bias)
    };
    assert_eq!(biases(json!({"attention_bias": true})), (true, true, false));
    assert_eq!(biases(json!({"mlp_bias": true})), (false, false, true));
    assert_eq!(biases(json!({"model_type": "qwen3", "attention_bias": true, "mlp_bias": true})), (true, true, false));
    assert_eq!(biases(json!({"model_type": "qwen3", "attention_bias": false})), (false, false, false));
    assert_eq!(biases(json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": 8})), (true, false, false));
    assert_eq!(biases(json!({"model_type": "mistral", "sliding_window": 64})), (false, false, false));
    assert_eq!(biases(json!({"model_type": "mistral", "sliding_window": null})), (false, false, false));
}

/// Configurations as they are published, cut to what counts, and the numbers of parameters that their cards and files add up to.
#[test]
fn published_sizes_have_their_published_numbers_of_parameters() {
    let sizes = |c: u64, layers: u64, heads: [u64; 2], f: u64, vocab: u64| {
        json!({"hidden_size": c, "num_hidden_layers": layers, "num_attention_heads": heads[0], "num_key_value_heads": heads[1],
            "intermediate_size": f, "vocab_size": vocab, "hidden_act": "silu", "tie_word_embeddings": true})
    };
    let window = json!({"use_sliding_window": false, "sliding_window": 32768, "max_window_layers": 24, "rope_theta": 1e6});
    let cases = [
        (json!({"model_type": "llama", "head_dim": 64}), sizes(2048, 16, [32, 8], 8192, 128_256), 1_235_814_400),
        (json!({"model_type": "llama", "is_llama_config": true}), sizes(576, 30, [9, 3], 1536, 49_152), 134_515_008),
        (with(&window, json!({"model_type": "qwen2"})), sizes(896, 24, [14, 2], 4864, 151_936), 494_032_768),
        (json!({"model_type": "qwen3", "attention_bias": false}), sizes(1024, 28, [16, 8], 3072, 151_936), 596_049_920),
        (
            json!({"model_type": "mistral", "sliding_window": 4096, "tie_word_embeddings": false}),
            with(&sizes(4096, 32, [32, 8], 14_336, 32_000), json!({"tie_word_embeddings": false})),
            7_241_732_096,
        ),
    ];
    for (family, sizes, parameters) in cases {
        assert_eq!(architecture(&with(&sizes, family.clone())).parameters(), parameters, "{family}");
    }
}

#[test]
fn yarn_has_the_defaults_of_transformers_and_stretches_the_context() {
    let of = |changes: Value| {
        let scaling = with(&json!({"type": "yarn", "factor": 4.0}), changes);
        let a = architecture(&with(&llama_config(), json!({"rope_scaling": scaling})));
        let RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, attention_factor, original_context } = a.rope.scaling else {
            panic!("{:?}", a.rope.scaling)
        };
        assert_eq!(factor, 4.0);
        ((beta_fast, beta_slow, truncate, original_context), attention_factor, a.context_length)
    };
    // 0.1 ln 4 + 1; the configured context is 64.
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    let (plain, attention, context) = of(json!({}));
    assert_eq!((plain, context), ((32.0, 1.0, true, 64), 256));
    close(attention, 1.138_629_436_111_989);
    let (own, attention, context) = of(json!({"beta_fast": 16, "beta_slow": 2, "truncate": false, "original_max_position_embeddings": 8}));
    assert_eq!((own, context), ((16.0, 2.0, false, 8), 64));
    close(attention, 1.138_629_436_111_989);
    close(of(json!({"attention_factor": 0.7})).1, 0.7);
    close(of(json!({"mscale": 2.0})).1, 1.138_629_436_111_989);
    close(of(json!({"mscale": 2.0, "mscale_all_dim": 0.5})).1, 1.277_258_872_223_978 / 1.069_314_718_055_995);
}

/// `llama_config` has 2 layers and a context of 64.
#[test]
fn a_context_ends_at_a_sliding_window() {
    let context = |changes: Value| {
        let config = parse(&with(&without(&llama_config(), "architectures"), changes)).unwrap();
        assert_eq!(config.declared_context, 64);
        config.architecture.context_length
    };
    for (window, expected) in [(json!(32), 32), (json!(64), 64), (json!(4096), 64), (json!(null), 64)] {
        assert_eq!(context(json!({"model_type": "mistral", "sliding_window": window})), expected, "{window}");
        let qwen = |changes: Value| {
            let base = json!({"use_sliding_window": true, "sliding_window": window, "max_window_layers": 1});
            ["qwen2", "qwen3"].map(|family| context(with(&with(&base, json!({"model_type": family})), changes.clone())))
        };
        assert_eq!(qwen(json!({})), [expected; 2], "{window}");
        assert_eq!(qwen(json!({"use_sliding_window": false})), [64; 2], "switched off");
        assert_eq!(qwen(json!({"max_window_layers": 2})), [64; 2], "no layer above");
        assert_eq!(qwen(json!({"layer_types": ["full_attention", "full_attention"]})), [64; 2], "layers by name");
        if window.is_number() {
            let types = json!({"max_window_layers": 2, "layer_types": ["full_attention", "sliding_attention"]});
            assert_eq!(qwen(types), [expected; 2], "layers by name");
        }
    }
}

/// What transformers writes today and what it wrote before, on the checkpoints of `golden/model`.
#[test]
fn families_are_read_as_they_are_saved() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/model").join(name).join("config.json");
        ModelConfig::open(&path).unwrap()
    };
    let (new, old) = (read("mistral_f32").architecture, read("mistral_window_old_f32"));
    assert_eq!((old.declared_context, old.architecture.context_length), (256, 64));
    assert_eq!(old.architecture, Architecture { context_length: 64, ..new });
    let switches = |name: &str| {
        let a = read(name).architecture;
        (a.tied, a.qkv_bias, a.o_bias, a.qk_norm, a.rope.theta)
    };
    assert_eq!(switches("llama32_f32"), (true, false, false, false, 5e5));
    assert_eq!(switches("smollm2_bf16"), (true, false, false, false, 1e5));
    assert_eq!(switches("qwen25_untied_bf16"), (false, true, false, false, 1e6));
    assert_eq!(switches("qwen3_tied_f32"), (true, false, false, true, 1e6));
    assert_eq!(switches("qwen3_biases_f32"), (false, true, true, true, 1e6));
}

#[test]
fn rotary_parameters_in_both_spellings() {
    let ramp = json!({"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let llama3 = RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
    let new = with(&ramp, json!({"rope_theta": 500000}));
    let plain = without(&llama_config(), "rope_theta");
    let cases = [
        (json!({"rope_theta": 500000, "rope_scaling": ramp}), 500_000.0, llama3.clone()),
        (json!({"rope_parameters": new}), 500_000.0, llama3.clone()),
        (json!({"rope_theta": 500000.0, "rope_parameters": new, "rope_scaling": ramp}), 500_000.0, llama3),
        (json!({"rope_scaling": {"type": "linear", "factor": 4}}), 10_000.0, RopeScaling::Linear { factor: 4.0 }),
        (json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}), 1e6, RopeScaling::None),
        (json!({"rope_parameters": {"rope_theta": 1e6}}), 1e6, RopeScaling::None),
        (json!({"rope_scaling": null}), 10_000.0, RopeScaling::None),
    ];
    for (changes, theta, scaling) in cases {
        assert_eq!(architecture(&with(&plain, changes.clone())).rope, Rope { theta, scaling }, "{changes}");
    }
}

#[test]
fn refusals_name_field_and_value() {
    let ramp = |changes: Value| {
        json!({"rope_scaling": with(&json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}), changes)})
    };
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"model_type": "gpt2"}), &["model_type", "gpt2", "llama, mistral, qwen2, qwen3"]),
        (json!({"model_type": "mixtral"}), &["mixtral"]),
        (json!({"model_type": null}), &["model_type", "missing"]),
        (json!({"model_type": 3}), &["model_type", "a string"]),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), &["architectures", "LlamaForCausalLM"]),
        (json!({"hidden_act": "gelu"}), &["hidden_act", "gelu", "silu"]),
        (json!({"quantization_config": {"quant_method": "gptq"}}), &["quantization_config", "gptq", "BF16"]),
        (json!({"num_local_experts": 8}), &["num_local_experts", "dense"]),
        (json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor"]),
        (json!({"hidden_size": 0}), &["hidden_size", "integer from 1"]),
        (json!({"hidden_size": -8}), &["hidden_size", "-8"]),
        (json!({"hidden_size": 8.5}), &["hidden_size", "8.5"]),
        (json!({"hidden_size": 1u64 << 40}), &["hidden_size"]),
        (json!({"hidden_size": null}), &["hidden_size", "missing"]),
        (json!({"hidden_size": 9}), &["head_dim", "4 heads do not divide 9"]),
        (json!({"hidden_size": 4}), &["head_dim", "is 1, must be even"]),
        (json!({"head_dim": 7}), &["head_dim", "even"]),
        (json!({"num_key_value_heads": 3}), &["num_key_value_heads", "does not divide"]),
        (json!({"num_hidden_layers": 100000}), &["num_hidden_layers"]),
        (json!({"vocab_size": 1u64 << 33}), &["vocab_size"]),
        (json!({"rms_norm_eps": 0}), &["rms_norm_eps"]),
        (json!({"rope_theta": "big"}), &["rope_theta", "big"]),
        (json!({"rope_theta": 0.5}), &["rope_theta"]),
        (json!({"tie_word_embeddings": "yes"}), &["tie_word_embeddings"]),
        (json!({"eos_token_id": 16}), &["eos_token_id", "16", "vocabulary of 16"]),
        (json!({"eos_token_id": [1, "x"]}), &["eos_token_id"]),
        (json!({"eos_token_id": vec![1; 65]}), &["eos_token_id", "at most 64"]),
        (json!({"bos_token_id": -1}), &["bos_token_id"]),
        (json!({"rope_scaling": {"rope_type": "yarn"}}), &["rope_scaling.factor", "missing"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4, "beta_fast": 0.5}}), &["beta_fast", "0.5", "beta_slow (1)"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4, "attention_factor": 0}}), &["attention_factor"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4, "truncate": 1}}), &["truncate"]),
        (json!({"rope_theta": 1, "rope_scaling": {"rope_type": "yarn", "factor": 4}}), &["rope_theta", "above 1"]),
        (
            json!({"rope_scaling": {"rope_type": "yarn2", "factor": 4.0}}),
            &["rope_scaling.rope_type", "yarn2", "default, linear, llama3, yarn"],
        ),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}), &["rope_scaling.type", "dynamic"]),
        (json!({"rope_parameters": {"rope_type": "longrope"}}), &["rope_parameters.rope_type", "longrope"]),
        (json!({"rope_scaling": {"factor": 4.0}}), &["rope_scaling.rope_type", "missing"]),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), &["rope_type"]),
        (json!({"rope_scaling": {"rope_type": "linear"}}), &["rope_scaling.factor", "missing"]),
        (json!({"rope_scaling": [1]}), &["rope_scaling", "an object"]),
        (json!({"rope_parameters": {"rope_theta": 5e5}}), &["rope_theta", "500000"]),
        (json!({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}}), &["contradicts"]),
        (ramp(json!({"factor": 0.5})), &["rope_scaling.factor"]),
        (ramp(json!({"high_freq_factor": 1.0})), &["high_freq_factor", "above low_freq_factor"]),
        (ramp(json!({"original_max_position_embeddings": null})), &["original_max_position_embeddings", "missing"]),
        (json!({"model_type": "mistral", "architectures": null, "sliding_window": 0}), &["sliding_window", "integer from 1"]),
        (json!({"model_type": "qwen2", "architectures": null, "use_sliding_window": "yes"}), &["use_sliding_window", "true, false"]),
        (
            json!({"model_type": "mistral", "architectures": null, "layer_types": ["chunked_attention"]}),
            &["layer_types", "chunked_attention"],
        ),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), &["layer_types", "sliding_attention"]),
    ];
    for (changes, parts) in cases {
        refuses(parse(&with(&llama_config(), changes)), &[&["config.json"], parts].concat());
    }
    for text in ["", "[]", "{", "nul", "{\"model_type\": \"llama\"}"] {
        refuses(ModelConfig::parse("config.json", text.as_bytes()), &["config.json"]);
    }
}

#[test]
fn the_largest_sizes_do_not_overflow() {
    let huge = with(
        &llama_config(),
        json!({"hidden_size": 1 << 16, "num_hidden_layers": 1024, "num_attention_heads": 1024,
            "num_key_value_heads": 1024, "head_dim": 1024, "intermediate_size": 1 << 20, "vocab_size": 1 << 22}),
    );
    assert!(architecture(&huge).parameters() > 1 << 40);
}
