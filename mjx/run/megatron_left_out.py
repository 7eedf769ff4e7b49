"""Why Megatron-LM's arguments have no place in a recipe."""

import fnmatch

_REASONS = {
    "mjx computes in bfloat16 instead, which needs no scale for the loss": "fp16 *loss_scale* hysteresis",
    "mjx computes products in bfloat16 or float32": (
        "fp4* fp8* first_last_layers_bf16 num_layers_at_*_in_bf16 te_precision_config_file kitchen_*"
    ),
    "instead of stages of layers, mesh.fsdp splits the parameters": (
        "pipeline_* virtual_pipeline_* num_layers_per_virtual_* num_virtual_stages_* "
        "decoder_first_pipeline_* decoder_last_pipeline_* account_for_*"
    ),
    "training.microbatches says it, together with the mesh": "micro_batch_size",
    "`mjx import --from megatron` makes a run folder of a checkpoint, which init_from may name": (
        "load load_* no_load_* finetune pretrained_checkpoint ckpt_step use_checkpoint_args "
        "allow_missing_*_checkpoint exit_on_missing_checkpoint use_mp_args_*"
    ),
    "mjx trains on files": "mock_data",
    "for experts, which this model does not have": "moe_* expert_* *_experts",
    "for parts that this model does not have": (
        "mamba_* gdp_* linear_conv_* linear_key_* linear_value_* linear_num_* dsa_* q_lora_rank kv_lora_rank "
        "qk_head_dim qk_pos_emb_head_dim v_head_dim mtp_* mup_* mhc_* mrope_* retro_* encoder_* decoder_* "
        "relative_attention_* bert_* vocab_extra_ids"
    ),
    "this model, optimizer or schedule does not look at it": (
        "max_position_embeddings rope_type start_weight_decay end_weight_decay soap_* adaptive_muon_* muon_* "
        "qk_clip_*"
    ),
    "how Megatron computes it": (
        "*fusion* fused_* *_fused_* *flash* attention_backend transformer_impl use_te_* *cuda_graph* "
        "*persist_layer_norm use_mcore_models deprecated_* masked_softmax_* attention_softmax_in_fp32 "
        "apply_query_key_layer_scaling cross_entropy_* deterministic_mode batch_invariant_* "
        "recompute_method recompute_num_layers recompute_modules distribute_saved_* *offload* no_pin_* pin_* "
        "use_te use_precision_aware_optimizer main_*_dtype exp_avg*_dtype accumulate_allreduce_* "
        "grad_reduce_in_bf16 *initialization manual_gc* empty_unused_memory_level calculate_per_token_loss "
        "disable_bf16_reduced_* memory_efficient_layer_norm"
    ),
    "how Megatron sends it": (
        "overlap_* no_overlap_* tp_comm_* ddp_* *nccl* *gloo* distributed_* local_rank rank "
        "*align_param_gather cp_comm_type *async_tensor_* *fsdp* num_distributed_optimizer_instances "
        "hierarchical_* delay_wgrad_* lazy_mpu_init batch_p2p_* use_ring_* deallocate_*"
    ),
    "what Megatron reports": (
        "log_* tensorboard_* timing_log_* wandb_* *one_logger* profile* use_pytorch_profiler record_memory_* "
        "memory_snapshot_* app_tag_* otel_* logging_level barrier_with_* *straggler* throughput_* "
        "config_logger_dir"
    ),
    "Megatron's checkpoints, and how its runs end": (
        "save_* no_save_* ckpt_* *dist_ckpt* auto_detect_ckpt_* exit_* adlr_* non_persistent_* replication* "
        "async_* enable_ft_package ft_* calc_ft_* inprocess_* rerun_* error_injection_* most_recent_k "
        "*check_for_* verify_integrity override_opt_* use_checkpoint_opt_*"
    ),
    "how Megatron reads data": (
        "num_workers *mmap* *create_attention_mask* num_dataset_builder_* dataloader_type object_storage_* "
        "*tiktoken* tokenizer_* trust_remote_code special_tokens mid_level_* pad_vocab_size"
    ),
    "a folder's image processor says how pictures are made ready, and its template how prompts are": (
        "use_tiling max_num_tiles use_thumbnail thumbnail_area_threshold use_area_weighted_* use_tile_tags "
        "image_tag_type prompt_path num_frames video_* packing_* dataloader_save dataloader_seq_length"
    ),
    "other uses than training a language model": (
        "*inference* *speculative* max_tokens_to_oom output_bert_* biencoder_* ict_* retriever_* query_in_* "
        "use_one_sent_* titles_* evidence_* block_data_* embedding_path indexer_* num_classes img_* "
        "num_channels patch_dim *_fraction *data_sharding head_lr_mult vision_* swin_* mask_* iter_per_epoch "
        "dino_* rl_* grpo_* sample_rate short_seq_prob"
    ),
}
"""Why → names, or patterns of them."""


def reason(name: str) -> str:
    """Why an argument is not taken."""
    for why, patterns in _REASONS.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split()):
            return why
    return "mjx does not know it"
