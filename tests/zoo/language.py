"""Language models of `transformers`, tiny and random, by their configurations."""

import torch
import transformers as t

V, T, D = 31, 6, 16  # vocabulary, length and width
_SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT = {"vocab_size": V, "n_embd": D, "n_layer": 2, "n_head": 2, **_ENDS}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SEVERAL = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
_PAIR = {
    "vocab_size": V,
    "d_model": D,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "decoder_start_token_id": 1,
    **_ENDS,
}
_T5 = {
    "vocab_size": V,
    "d_model": D,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "decoder_start_token_id": 0,
    **_ENDS,
}
_STATE = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "state_size": 4}

CAUSAL = {
    "Llama": ("Llama", _SIZES | _GROUPED),
    "Mistral": ("Mistral", _SIZES | _GROUPED | {"sliding_window": 4}),
    "Qwen2": ("Qwen2", _SIZES | {"num_key_value_heads": 1}),
    "Qwen3": ("Qwen3", _SIZES | _GROUPED),
    "Gemma": ("Gemma", _SIZES | _GROUPED),
    "Gemma 2": ("Gemma2", _SIZES | _GROUPED | {"sliding_window": 4}),
    "Phi": ("Phi", _SIZES | {"attention_dropout": 0.1, "resid_pdrop": 0.1}),
    "Phi-3": ("Phi3", _SIZES | {"resid_pdrop": 0.1}),
    "StableLM": ("StableLm", _SIZES | {"num_key_value_heads": 1}),
    "OLMo 2": ("Olmo2", _SIZES),
    "Cohere": ("Cohere", _SIZES),
    "Granite": ("Granite", _SIZES),
    "GPT-2": ("GPT2", _GPT | {"n_positions": 32}),
    "GPT-J": ("GPTJ", _GPT | {"n_positions": 32, "rotary_dim": 4}),
    "GPT-NeoX": ("GPTNeoX", _SIZES),
    "GPT-Neo": (
        "GPTNeo",
        {
            "vocab_size": V,
            "hidden_size": D,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "intermediate_size": 24,
            "max_position_embeddings": 32,
            "window_size": 4,
            **_ENDS,
        },
    ),
    "OPT": (
        "OPT",
        _SIZES | {"ffn_dim": 24, "word_embed_proj_dim": D, "dropout": 0.1},
    ),
    "BLOOM": ("Bloom", {"vocab_size": V, "hidden_size": D, "n_layer": 2, "n_head": 2}),
    "Falcon": ("Falcon", _SIZES | {"alibi": True, "new_decoder_architecture": False}),
    "MPT": ("Mpt", {"vocab_size": V, "d_model": D, "n_layers": 2, "n_heads": 2}),
    "Mixtral": ("Mixtral", _SIZES | _GROUPED | _EXPERTS),
    "Qwen2-MoE": (
        "Qwen2Moe",
        _SIZES
        | _SEVERAL
        | {"shared_expert_intermediate_size": 12, "num_key_value_heads": 1},
    ),
    "OLMoE": ("Olmoe", _SIZES | {"num_experts": 4, "num_experts_per_tok": 2}),
    "Mamba": ("Mamba", _STATE | {"time_step_rank": 2}),
    "Mamba 2": (
        "Mamba2",
        _STATE | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    ),
    "Falcon-Mamba": ("FalconMamba", _STATE | {"time_step_rank": 2}),
    "XLNet": (
        "XLNet",
        {"vocab_size": V, "d_model": D, "n_layer": 2, "n_head": 2, "d_inner": 24},
    ),
    "RecurrentGemma": (
        "RecurrentGemma",
        _SIZES | {"num_hidden_layers": 3, "lru_width": D, "attention_window_size": 4},
    ),
}
MASKED = {
    "BERT": ("Bert", _SIZES),
    "RoBERTa": ("Roberta", _SIZES | {"max_position_embeddings": 34}),
    "ALBERT": ("Albert", _SIZES | {"embedding_size": 8}),
    "ELECTRA": ("Electra", _SIZES | {"embedding_size": 8}),
    "DistilBERT": (
        "DistilBert",
        {"vocab_size": V, "dim": D, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    ),
    "DeBERTa-v2": (
        "DebertaV2",
        _SIZES
        | {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": 8,
        },
    ),
    "MPNet": ("MPNet", _SIZES | {"max_position_embeddings": 34}),
    "FNet": ("FNet", _SIZES | {"type_vocab_size": 2}),
    "ModernBERT": (
        "ModernBert",
        _SIZES | {"cls_token_id": 3, "sep_token_id": 4, "local_attention": 4},
    ),
}
PAIRED = {
    "T5": ("T5", _T5),
    "mT5": ("MT5", _T5 | {"feed_forward_proj": "gated-gelu"}),
    "Switch Transformers": (
        "SwitchTransformers",
        _T5 | {"num_experts": 2, "expert_capacity": 64, "num_sparse_encoder_layers": 1},
    ),
    "BART": ("Bart", _PAIR),
    "mBART": ("MBart", _PAIR),
    "Pegasus": ("Pegasus", _PAIR),
    "Marian": ("Marian", _PAIR | {"decoder_vocab_size": V}),
    "M2M100": ("M2M100", _PAIR),
    "BART, layers dropped": ("Bart", _PAIR | {"encoder_layerdrop": 0.5}),
}


def tokens(n):
    return torch.randint(5, V, (n, T))


def causal(name):
    config, sizes = CAUSAL[name]
    return _model(t.AutoModelForCausalLM, config, sizes), lambda n: {
        "input_ids": tokens(n)
    }


def masked(name):
    config, sizes = MASKED[name]
    mask = torch.tensor([[1] * T, [1] * 4 + [0] * (T - 4)])

    def batch(n):
        return {"input_ids": tokens(n), "attention_mask": mask[torch.arange(n) % 2]}

    return _model(t.AutoModelForMaskedLM, config, sizes), batch


def paired(name):
    config, sizes = PAIRED[name]

    def batch(n):
        return {"input_ids": tokens(n), "decoder_input_ids": tokens(n)[:, :4]}

    return _model(t.AutoModelForSeq2SeqLM, config, sizes), batch


def _model(auto, config, sizes):
    config = getattr(t, f"{config}Config")(**sizes)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    config._experts_implementation = "eager"  # the others have no float64
    return auto.from_config(config)
