"""What is learnt from the clips, and the model that ships (paper 3.1 and 4.1)."""

from tests.mutants.mutation import Mutation

_DROPS = "tests/unit/training/test_objectives.py::test_drops_take_away_what_they_name"
_OBJECTIVE = "tests/unit/training/test_objectives.py::test_predicting_the_true_velocity_costs_nothing"
_PACK = "tests/unit/training/test_pack.py::test_the_trained_networks_are_packed_and_guidance_drops_the_person"
_ROWS = "tests/unit/training/test_video_rows.py::"
_SAME_ROW = _ROWS + "test_clip_reference_face_and_shape_are_of_the_row_that_the_text_is_of"
_SCHEDULE = "tests/unit/training/test_trainer.py::test_the_learning_rate_warms_up_holds_and_falls_as_a_cosine"
_STAGES = "tests/unit/training/test_video_stages.py::"
_FROZEN = _STAGES + "test_a_frozen_base_stays_and_injection_and_identity_encoder_learn"
_STAGE = "training/stages.py"
_NETWORKS = "training/networks.py"

TRAINING = (
    # The objective
    Mutation(
        "the network predicts the velocity",
        "training/objectives/video.py",
        "(predicted.float() - velocity).square()",
        "(predicted.float() - noise).square()",
        _OBJECTIVE,
    ),
    Mutation(
        "the velocity has its signs",
        "training/objectives/video.py",
        "signal * noise - sigma * clean",
        "signal * noise + sigma * clean",
        _OBJECTIVE,
    ),
    Mutation(
        "noise and signal have their shares",
        "training/objectives/video.py",
        "signal * clean + sigma * noise",
        "sigma * clean + signal * noise",
        "tests/unit/training/test_objectives.py::test_noise_and_velocity_are_the_schedulers",
    ),
    Mutation(
        "the network is told the time of the noise",
        "training/objectives/video.py",
        "                timesteps,\n                image_rotary_emb",
        "                timesteps.flip(0),\n                image_rotary_emb",
        _ROWS + "test_the_time_told_is_that_of_the_noise",
    ),
    # Rows
    Mutation(
        "head shapes are of the rows of the face tokens",
        "training/objectives/video.py",
        "identity = rows.identity.float()",
        "identity = rows.identity.roll(1, 0).float()",
        _SAME_ROW,
    ),
    Mutation(
        "face tokens are of the rows of the clips",
        "training/objectives/video.py",
        "rows.face_tokens.float()",
        "rows.face_tokens.roll(1, 0).float()",
        _SAME_ROW,
    ),
    Mutation(
        "references are of the rows of the clips",
        "training/objectives/video.py",
        "rows.reference.float()",
        "rows.reference.roll(1, 0).float()",
        _SAME_ROW,
    ),
    Mutation(
        "texts are of the rows of the clips",
        "training/objectives/video.py",
        "rows.text.float()",
        "rows.text.roll(1, 0).float()",
        _SAME_ROW,
    ),
    Mutation(
        "the reference beside a clip is not its first frame",
        "training/objectives/video.py",
        "rows.reference.float()",
        "rows.clips[:, :1].float()",
        _SAME_ROW,
    ),
    Mutation(
        "every clip of every pool is drawn",
        "training/objectives/video.py",
        "            start += size\n",
        "            start += 0\n",
        _ROWS + "test_rows_of_several_pools_stay_whole_and_are_drawn_by_their_number",
    ),
    Mutation(
        "clips are padded in front",
        "training/objectives/video.py",
        "torch.cat([clean[:, :1].expand(-1, padding, -1, -1, -1), clean], dim=1)",
        "torch.cat([clean, clean[:, :1].expand(-1, padding, -1, -1, -1)], dim=1)",
        _ROWS + "test_frames_are_padded_in_front_with_the_first",
    ),
    Mutation(
        "heads are neutral in training",
        "training/objectives/video.py",
        "self.head.neutral(identity)",
        "self.head.shape(identity, torch.ones(len(identity), len(self.head.expression_names)))",
        _SAME_ROW,
    ),
    # Drops
    Mutation(
        "dropped texts are empty",
        "training/objectives/video.py",
        "torch.where(keep_text[:, None, None] > 0,",
        "torch.where(keep_text[:, None, None] >= 0,",
        _DROPS,
    ),
    Mutation(
        "identity tokens are dropped",
        "training/objectives/video.py",
        "everything * self._keep(self.drop_identity)",
        "everything",
        _DROPS,
    ),
    Mutation(
        "a tenth of the texts is dropped",
        "training/objectives/video.py",
        "drop_text: float = 0.1",
        "drop_text: float = 0.0",
        _ROWS + "test_what_is_dropped_unless_told_otherwise",
    ),
    # Stages
    Mutation(
        "a frozen base stays",
        _STAGE,
        "parameter.requires_grad_(is_injected(name))",
        "parameter.requires_grad_(True)",
        _FROZEN,
    ),
    Mutation(
        "the injection learns",
        _STAGE,
        "parameter.requires_grad_(is_injected(name))",
        'parameter.requires_grad_("norm_final" in name)',
        _FROZEN,
    ),
    Mutation(
        "a base that is not frozen learns",
        _STAGE,
        "if config.objective.freeze_base:",
        "if True:",
        _STAGES + "test_a_base_that_is_not_frozen_learns_too",
    ),
    Mutation(
        "the identity encoder learns",
        _STAGE,
        "model = VideoModel(transformer, encoder)",
        "model = VideoModel(transformer, encoder and encoder.requires_grad_(False))",
        _FROZEN,
    ),
    Mutation(
        "the trained identity encoder is saved",
        _STAGE,
        "averaged.identity_encoder.save_pretrained(",
        "networks.identity_encoder(fields, token_dim, None, None, head).save_pretrained(",
        _FROZEN,
    ),
    Mutation(
        "a taught encoder goes on",
        _NETWORKS,
        'folder = taught / "identity_encoder" if taught is not None else before',
        "taught, folder = None, before",
        _STAGES + "test_a_taught_encoder_goes_on_and_its_population_is_measured_anew",
    ),
    Mutation(
        "the population is measured anew",
        _STAGE,
        "            objective.measure_population(averaged.identity_encoder)\n",
        "",
        _STAGES + "test_a_taught_encoder_goes_on_and_its_population_is_measured_anew",
    ),
    Mutation(
        "the identity encoder gets the spirals of the mesh",
        _NETWORKS,
        "spirals = [torch.from_numpy(spiral) for spiral in hierarchy.spirals]",
        "spirals = [torch.from_numpy(spiral).flip(1) for spiral in hierarchy.spirals]",
        _STAGES + "test_the_identity_encoder_is_saved_with_the_mesh_of_the_head",
    ),
    Mutation(
        "a run goes on with its own config alone",
        "training/config_files.py",
        "        _refuse_other(config, kept, folder)\n",
        "",
        "tests/unit/training/test_resuming.py::test_the_config_is_kept_and_only_more_steps_go_on",
    ),
    Mutation(
        "a network to start from is the one that the preset describes",
        _NETWORKS,
        "    check_same(config.model_dump(), loaded.config, folder)\n    return loaded",
        "    return loaded",
        "tests/unit/training/test_starting.py::test_an_injection_that_is_not_the_presets_is_refused",
    ),
    Mutation(
        "fields that the preset leaves out are compared too",
        _NETWORKS,
        "    check_same(config.model_dump(), loaded.config, folder)\n    return loaded",
        "    check_same(config.model_dump(exclude_unset=True), loaded.config, folder)\n    return loaded",
        "tests/unit/training/test_starting.py::test_a_field_that_the_preset_leaves_out_has_its_default_and_is_compared",
    ),
    Mutation(
        "the learning rate warms up",
        "training/trainer.py",
        "warm = min(1.0, (self.step + 1) / (self.config.warmup_steps + 1))",
        "warm = 1.0",
        _SCHEDULE,
    ),
    Mutation(
        "the learning rate falls as a cosine",
        "training/trainer.py",
        "0.5 * (1 + math.cos(math.pi * falling))",
        "(1 - falling)",
        _SCHEDULE,
    ),
    Mutation(
        "AdamW decays matrices",
        "training/trainer.py",
        '"weight_decay": config.weight_decay}',
        '"weight_decay": 0.0}',
        "tests/unit/training/test_trainer.py::test_only_matrices_decay",
    ),
    Mutation(
        "the averaged weights are the result",
        "training/trainer.py",
        "move_all_towards(averaged, current, 1 - decay)",
        "move_all_towards(averaged, current, 1.0)",
        "tests/unit/training/test_trainer.py::test_the_average_follows_its_formula",
    ),
    # The model that ships
    Mutation(
        "the packed model's guidance drops the person",
        "training/pack.py",
        "guidance_drops_identity=True",
        "guidance_drops_identity=False",
        _PACK,
    ),
    Mutation(
        "the trained identity encoder is packed",
        "training/pack.py",
        "identity_encoder=load(parts.identity_encoder, IdentityEncoder)",
        "identity_encoder=IdentityEncoder.from_config(load(parts.identity_encoder, IdentityEncoder).config)",
        _PACK,
    ),
    # Telling people apart and reading faces
    Mutation(
        "rendered pairs are of one person",
        "training/objectives/vision.py",
        "torch.cat([rendered, pictures])",
        'torch.cat([rendered.flip(0) if name == "frame_face" else rendered, pictures])',
        "tests/unit/training/test_objectives.py::test_infonce_is_low_for_good_embeddings_and_chance_for_blind_ones",
    ),
    Mutation(
        "the reader's photo pairs are two photos",
        "training/objectives/reader.py",
        "photo = torch.cat([photo, rigs.other[photo]])",
        "photo = torch.cat([photo, photo])",
        "tests/unit/training/test_reader.py::test_halves_show_the_same_people",
    ),
    Mutation(
        "the reader's photos are asked for their own shape",
        "training/objectives/reader.py",
        "identity=rigs.identity[photo],",
        "identity=rigs.identity[photo.roll(1)],",
        "tests/unit/training/test_reader.py::test_halves_show_the_same_people",
    ),
    Mutation(
        "real pairs are of one person",
        "training/objectives/vision.py",
        "for index in (chosen, rigs.other[chosen])",
        "for index in (chosen, rigs.other[chosen].roll(1))",
        "tests/unit/training/test_objectives.py::test_real_pairs_are_two_photos_of_one_person",
    ),
    Mutation(
        "gradients are averaged, not added",
        "training/parallel.py",
        "    flat /= dist.get_world_size()\n",
        "",
        "tests/unit/training/test_parallel.py::test_two_processes_train_one_model",
    ),
    Mutation(
        "all processes start from one model",
        "training/parallel.py",
        "dist.broadcast(tensor.data, 0)",
        "dist.broadcast(tensor.data.clone(), 0)",
        "tests/unit/training/test_parallel.py::test_two_processes_train_one_model",
    ),
    Mutation(
        "buffers are those of process 0",
        "training/parallel.py",
        "(*model.parameters(), *model.buffers())",
        "(*model.parameters(),)",
        "tests/unit/training/test_parallel.py::test_two_processes_train_one_model",
    ),
    Mutation(
        "the trainer averages gradients",
        "training/trainer.py",
        "                average_gradients(self.model.parameters())\n",
        "",
        "tests/unit/training/test_parallel.py::test_two_processes_train_one_model",
    ),
    Mutation(
        "a gradient that is not finite stops a run",
        "training/trainer.py",
        'math.isfinite(numbers["loss"] + numbers["norm"])',
        'math.isfinite(numbers["loss"])',
        "tests/unit/training/test_trainer.py::test_a_loss_or_gradient_that_is_not_finite_stops_the_run",
    ),
    Mutation(
        "the painted face is compared with the frontal one",
        "training/objectives/encoder.py",
        'rows["neutral_face"][people].float()',
        'rows["face"][people].float()',
        "tests/unit/training/test_encoder.py::test_views_shapes_and_targets_are_of_the_same_people",
    ),
    Mutation(
        "the head shown is of the face shown",
        "training/objectives/encoder.py",
        "(identity + self.shape_noise * noise).flatten(0, 1)",
        "(identity.flip(0) + self.shape_noise * noise).flatten(0, 1)",
        "tests/unit/training/test_encoder.py::test_views_shapes_and_targets_are_of_the_same_people",
    ),
    Mutation(
        "offsets are asked for",
        "training/objectives/encoder.py",
        "return coarse[:-1] - coarse[-1:]",
        "return coarse[:-1]",
        "tests/unit/training/test_encoder.py::test_right_answers_cost_next_to_nothing",
    ),
    Mutation(
        "tokens must tell people apart",
        "training/objectives/encoder.py",
        "(apart + apart_tokens)",
        "(apart + 0 * apart_tokens)",
        "tests/unit/training/test_encoder.py::test_every_trained_parameter_gets_a_gradient",
    ),
    Mutation(
        "the VAE is asked at half size",
        "training/objectives/vae.py",
        "loss = error + self.edge_weight * edges + self.half_share * coarse",
        "loss = error + self.edge_weight * edges",
        "tests/unit/training/test_vae.py::test_errors_are_counted_where_they_are",
    ),
    Mutation(
        "noise is put on the latents",
        "training/objectives/vae.py",
        "latents + noise * torch.randn_like(latents)",
        "latents + 0 * noise",
        "tests/unit/training/test_vae.py::test_what_is_decoded_is_decoded_with_noise_and_at_half_size",
    ),
    Mutation(
        "statistics of latents are by channel",
        "training/objectives/vae.py",
        "torch.cat(parts).transpose(0, 1).flatten(1)",
        "torch.cat(parts).flatten(1)",
        "tests/unit/training/test_vae.py::test_statistics_are_those_of_the_latents",
    ),
)
