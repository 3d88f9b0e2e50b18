"""The keys of `config.json` that the network need not read: those without effect, and those with one supported value.

They are the fields that transformers 4.37 to 5 and common tools write for Qwen2 and Qwen3. `Settings.finish` refuses
every other key.
"""

from collections.abc import Mapping

NO_QUANTIZATION = "quantized weights cannot be trained; use the checkpoint that is not quantized"
NO_OTHER_DTYPE = 'expected "float32", "bfloat16", "float16" or "float64"; state the type of the stored tensors'
DTYPES = ("float32", "bfloat16", "float16", "float64", None)

# Key -> the values that state the network that is computed here, and what to do about any other. Values compare with
# their type: 0 is not false.
SUPPORTED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "hidden_act": (("silu",), 'expected "silu"; use another checkpoint'),
    "attention_dropout": ((0, 0.0), "training has no dropout here; set it to 0.0 to train without"),
    "use_sliding_window": ((False,), "set it to false for full attention"),
    "is_causal": ((True,), "expected true: each token sees the earlier ones only; use another checkpoint"),
    "mlp_bias": ((False, None), "expected false; use another checkpoint"),
    "partial_rotary_factor": ((1, 1.0, None), "expected 1: the whole head is rotated; use another checkpoint"),
    "use_mrope": ((False, None), "expected false; use a checkpoint for text only"),
    "dual_chunk_attention_config": ((None,), "remove it for contexts of at most the length trained without it"),
    "quantization_config": ((None,), NO_QUANTIZATION),
    "quantization": ((None,), NO_QUANTIZATION),
    "compression_config": ((None,), NO_QUANTIZATION),
    "auto_map": ((), "code in the checkpoint is not run; use a checkpoint of a class of transformers"),
    "per_layer_config": ((None, {}), "expected the same sizes in every layer; use another checkpoint"),
    "pruned_heads": ((None, {}), "expected whole layers; use another checkpoint"),
    "is_encoder_decoder": ((False,), "expected false; use a checkpoint of a decoder"),
    "add_cross_attention": ((False, None), "expected false; use a checkpoint of a decoder"),
    "cross_attention_hidden_size": ((None,), "expected null; use a checkpoint of a decoder"),
    "tie_encoder_decoder": ((False, None), "expected false; use a checkpoint of a decoder"),
    "dtype": (DTYPES, NO_OTHER_DTYPE),
    "torch_dtype": (DTYPES, NO_OTHER_DTYPE),
}

# The origin of the file, and the program that wrote it.
ORIGIN = {
    "_commit_hash",
    "_name_or_path",
    "model_name",
    "name_or_path",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
}
# Options of the program that runs the network, such as the values that it returns.
RUNTIME = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_flash_attn_2_enabled",
    "_experts_implementation_internal",
    "_output_attentions",
    "attn_implementation",
    "chunk_size_feed_forward",
    "experts_implementation",
    "gradient_checkpointing",
    "is_decoder",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "tf_legacy_loss",
    "tie_last_hidden_states",
    "torchscript",
    "transformers.js_config",
    "use_bfloat16",
    "use_cache",
}
# Heads for other tasks and the tokenizer, which a causal language model does not have or does not read.
OTHER_TASKS = {
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "prefix",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "decoder_start_token_id",
    "pad_token_id",
    "sep_token_id",
}
# Defaults of generation, which earlier versions of transformers kept here.
GENERATION = {
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
}
# The window that no layer has while use_sliding_window is false.
WINDOW = {"max_window_layers", "sliding_window"}
NO_EFFECT = ORIGIN | RUNTIME | OTHER_TASKS | GENERATION | WINDOW
