"""Networks that tell a person (paper 3.2 to 3.4)."""

from tests.mutants.mutation import Mutation

_ABSTRACTOR = "tests/unit/models/test_face_abstractor.py::test_abstractor_equals_its_steps"
_DEPTH = "tests/unit/models/test_spiral.py::test_depth_code_equals_its_formula"
_ENCODER = "tests/unit/models/test_identity_encoder.py::test_encoder_equals_its_steps"
_EVA = "tests/unit/models/test_eva_vision.py::test_tokens_are_those_of_the_authors_code"
_FUSION = "tests/unit/models/test_identity_encoder.py::test_fusion_equals_pytorchs_own_layers"
_LIFT = "tests/unit/models/test_identity_encoder.py::test_lift_equals_its_steps"
_POOLING = "tests/unit/models/test_spiral.py::test_pooling_equals_a_dense_matrix"
_Q_FORMER = "tests/unit/models/test_face_abstractor.py::test_q_former_equals_its_steps"
_SPIRAL_CONV = "tests/unit/models/test_spiral.py::test_spiral_convolution_equals_a_loop"
_SPIRAL_ENCODER = "tests/unit/models/test_spiral.py::test_encoder_equals_its_steps"
_VISION = "tests/unit/models/test_vision_and_reader.py::test_vision_output_equals_its_steps"
_READER = "tests/unit/models/test_vision_and_reader.py"

IDENTITY_MODELS = (
    # Face vision
    Mutation(
        "face tokens lie where their patches are",
        "models/vision.py",
        '"b (h w) c -> b h w c"',
        '"b (w h) c -> b h w c"',
        _VISION,
    ),
    Mutation("face vision has blocks", "models/vision.py", "tokens = block(tokens)", "pass", _VISION),
    Mutation(
        "patches know their place",
        "models/vision.py",
        'rearrange(features, "b c h w -> b (h w) c") + self.position',
        'rearrange(features, "b c h w -> b (h w) c")',
        _VISION,
    ),
    Mutation(
        "the built-in tokens keep the layout of the picture",
        "models/vision.py",
        '"b c h w -> b (h w) c"',
        '"b c h w -> b (w h) c"',
        _READER + "::test_vision_tokens_keep_the_layout",
    ),
    Mutation(
        "face embeddings have length one",
        "models/vision.py",
        "F.normalize(self.to_embedding(pooled), dim=-1)",
        "self.to_embedding(pooled)",
        _VISION,
    ),
    Mutation(
        "EVA's tokens lie where their patches are",
        "models/eva_vision.py",
        'tokens[:, 1:], "b (h w) c -> b h w c"',
        'tokens[:, 1:], "b (w h) c -> b h w c"',
        _EVA,
    ),
    Mutation(
        "EVA's rotation counts rows before columns",
        "models/eva_vision.py",
        "torch.cat([rows, columns], dim=1)",
        "torch.cat([columns, rows], dim=1)",
        _EVA,
    ),
    Mutation(
        "EVA's feed-forward is gated",
        "models/eva_vision.py",
        "F.silu(self.gate(x)) * self.value(x)",
        "F.silu(self.gate(x)) + self.value(x)",
        _EVA,
    ),
    Mutation(
        "landmarks depend on the picture",
        "models/face_reader.py",
        "self.mean_landmarks + rearrange(",
        "self.mean_landmarks + 0 * rearrange(",
        _READER + "::test_landmarks_depend_on_where_the_face_is",
    ),
    Mutation(
        "where landmarks lie tells the shape",
        "models/face_reader.py",
        "self.head(torch.cat([looks, places], 1))",
        "self.head(torch.cat([looks, 0 * places], 1))",
        "tests/unit/training/test_reader.py::test_places_of_landmarks_tell_shape_too",
    ),
    # Face abstractor and Q-Former
    Mutation(
        "the abstractor's blocks have a residual",
        "models/face_abstractor.py",
        "return F.silu(x + h)",
        "return F.silu(h)",
        _ABSTRACTOR,
    ),
    Mutation(
        "the abstractor's blocks have squeeze and excitation",
        "models/face_abstractor.py",
        "self.conv3(self.excitation(h))",
        "self.conv3(h)",
        _ABSTRACTOR,
    ),
    Mutation(
        "the abstractor knows places",
        "models/face_abstractor.py",
        '"b h w c -> b c h w") + self.position',
        '"b h w c -> b c h w")',
        _ABSTRACTOR,
    ),
    Mutation(
        "the abstractor keeps the layout",
        "models/face_abstractor.py",
        'self.mlp(rearrange(grid, "b c h w -> b h w c"))',
        'self.mlp(rearrange(grid, "b c h w -> b w h c"))',
        _ABSTRACTOR,
    ),
    Mutation(
        "the abstractor has blocks after its pooling",
        "models/face_abstractor.py",
        "self.after(self.pool(self.before(grid)))",
        "self.pool(self.before(grid))",
        _ABSTRACTOR,
    ),
    Mutation(
        "the abstractor averages",
        "models/face_abstractor.py",
        "nn.AvgPool2d(pool_factor)",
        "nn.MaxPool2d(pool_factor)",
        _ABSTRACTOR,
    ),
    Mutation(
        "the MLP from C to C' has a nonlinearity",
        "models/face_abstractor.py",
        "nn.Linear(in_channels, in_channels), nn.SiLU(), nn.Linear(in_channels, out_channels)",
        "nn.Linear(in_channels, in_channels), nn.Identity(), nn.Linear(in_channels, out_channels)",
        _ABSTRACTOR,
    ),
    Mutation(
        "the Q-Former's queries read the face",
        "models/qformer.py",
        "self.cross_attention(self.norm2(queries), context)",
        "self.cross_attention(self.norm2(queries), context[:, :1])",
        _Q_FORMER,
    ),
    Mutation(
        "the Q-Former's layers have residuals",
        "models/qformer.py",
        "queries = queries + self.feed_forward(self.norm3(queries))",
        "queries = self.feed_forward(self.norm3(queries))",
        _Q_FORMER,
    ),
    Mutation(
        "the Q-Former has four layers",
        "models/qformer.py",
        "pool_factor: int, num_layers: int = 4",
        "pool_factor: int, num_layers: int = 3",
        _Q_FORMER,
    ),
    # Spirals
    Mutation(
        "spirals are concatenated from the centre outwards",
        "models/spiral.py",
        "x[:, spirals]",
        "x[:, spirals.flip(-1)]",
        _SPIRAL_CONV,
    ),
    Mutation(
        "pooling weighs its vertices",
        "models/spiral.py",
        'torch.einsum("bmkc,mk->bmc", x[:, indices], weights)',
        "x[:, indices].mean(2)",
        _POOLING,
    ),
    Mutation(
        "a vertex enters as its offset from the mean head",
        "models/spiral.py",
        "offsets = vertices - self.template",
        "offsets = vertices",
        _SPIRAL_ENCODER,
    ),
    Mutation("spiral convolutions are followed by ELU", "models/spiral.py", "F.elu(x)", "F.relu(x)", _SPIRAL_ENCODER),
    Mutation(
        "every level has its spirals",
        "models/spiral.py",
        'tensors = {f"spirals_{level}": spiral for',
        'tensors = {f"spirals_{level}": spiral.flip(-1) for',
        _SPIRAL_ENCODER,
    ),
    # Depth code
    Mutation(
        "depth counts in millimetres", "models/depth_encoding.py", "DEPTH_UNIT_CM = 0.1", "DEPTH_UNIT_CM = 1.0", _DEPTH
    ),
    Mutation(
        "larger depth is nearer",
        "models/depth_encoding.py",
        "rearrange(depth_cm / DEPTH_UNIT_CM",
        "rearrange(-depth_cm / DEPTH_UNIT_CM",
        _ENCODER,
    ),
    Mutation(
        "frequencies of depth fall", "models/depth_encoding.py", "10000.0**-exponent", "10000.0**exponent", _DEPTH
    ),
    Mutation(
        "the depth code is added",
        "models/identity_encoder.py",
        "shape.features + depth_code",
        "shape.features - depth_code",
        _ENCODER,
    ),
    Mutation(
        "depth is z",
        "models/identity_encoder.py",
        "encode_depth(shape.vertices[..., 2]",
        "encode_depth(shape.vertices[..., 1]",
        _ENCODER,
    ),
    Mutation(
        "depth counts with its sign",
        "models/identity_encoder.py",
        "encode_depth(shape.vertices[..., 2]",
        "encode_depth(-shape.vertices[..., 2]",
        _ENCODER,
    ),
    # Fusion
    Mutation(
        "the encoder's fusion has a residual",
        "models/attention.py",
        "x = x + self.attention(",
        "x = self.attention(",
        _ENCODER,
    ),
    Mutation(
        "the encoder's fusion ends with a norm",
        "models/fusion.py",
        "out: Tensor = self.norm(tokens)",
        "out: Tensor = tokens",
        _ENCODER,
    ),
    Mutation(
        "vertices stand before face tokens",
        "models/identity_encoder.py",
        "torch.cat([vertex_tokens, tokens], dim=1)",
        "torch.cat([tokens, vertex_tokens], dim=1)",
        _ENCODER,
    ),
    Mutation(
        "face tokens are fused",
        "models/identity_encoder.py",
        "torch.cat([vertex_tokens, tokens], dim=1)",
        "torch.cat([vertex_tokens, 0 * tokens], dim=1)",
        _ENCODER,
    ),
    Mutation(
        "identity tokens stand at the vertices",
        "models/identity_encoder.py",
        "fused[:, : vertex_tokens.shape[1]]",
        "fused[:, -vertex_tokens.shape[1] :]",
        _ENCODER,
    ),
    Mutation(
        "face tokens are fused without vertices too",
        "models/identity_encoder.py",
        "self.lift(self.fusion(tokens))",
        "self.lift(tokens)",
        _ENCODER,
    ),
    Mutation(
        "without vertices none are read",
        "models/identity_encoder.py",
        "fused: Tensor = self.lift(self.fusion(tokens))",
        "fused: Tensor = self.lift(self.fusion(tokens * (1 + vertices[:, :1, :1])))",
        _ENCODER,
    ),
    Mutation(
        "fusion has a residual around attention",
        "models/attention.py",
        "x = x + self.attention(",
        "x = self.attention(",
        _FUSION,
    ),
    Mutation(
        "fusion has a residual around its feed-forward",
        "models/attention.py",
        "x = x + self.feed_forward(",
        "x = self.feed_forward(",
        _FUSION,
    ),
    Mutation(
        "fusion's last norm", "models/fusion.py", "out: Tensor = self.norm(tokens)", "out: Tensor = tokens", _FUSION
    ),
    Mutation(
        "keys stand before values",
        "models/attention.py",
        "attended = F.scaled_dot_product_attention(query, key, value)",
        "attended = F.scaled_dot_product_attention(query, value, key)",
        _FUSION,
    ),
    Mutation(
        "the lift has a skip connection",
        "models/fusion.py",
        "out: Tensor = self.skip(tokens) + ",
        "out: Tensor = ",
        _LIFT,
    ),
    Mutation("the lift has four blocks", "models/fusion.py", "num_blocks: int = 4", "num_blocks: int = 3", _LIFT),
    Mutation(
        "the lift convolves along the tokens",
        "models/fusion.py",
        "nn.Conv1d(in_channels, in_channels, 3, padding=1)",
        "nn.Conv1d(in_channels, in_channels, 1)",
        _LIFT,
    ),
    Mutation(
        "the lift's second convolution has its norm and SiLU",
        "models/fusion.py",
        'F.silu(self.norm2(rearrange(h, "b c n -> b n c")))',
        'rearrange(h, "b c n -> b n c")',
        _LIFT,
    ),
    Mutation(
        "in training the mean is that of the batch",
        "models/population_norm.py",
        "if self.training else",
        "if False else",
        "tests/unit/models/test_population_norm.py::test_in_training_the_batchs_mean_is_taken_out_and_the_rest_is_of_unit_size",
    ),
    Mutation(
        "what all people share gets no gradient",
        "models/population_norm.py",
        "mean = tokens.mean(dim=0)",
        "mean = tokens.mean(dim=0).detach()",
        "tests/unit/models/test_population_norm.py::test_a_part_common_to_all_gets_no_gradient",
    ),
    Mutation(
        "the measured spread counts",
        "models/population_norm.py",
        "self.spread.copy_(spread)",
        "pass",
        "tests/unit/models/test_population_norm.py::test_afterwards_what_was_measured_counts_and_one_person_is_enough",
    ),
    Mutation(
        "drift sees tokens that shrink",
        "models/population_norm.py",
        "mean.square().mean() + spread.log().square()",
        "mean.square().mean() + spread.log().clamp(min=0).square()",
        "tests/unit/models/test_population_norm.py::test_drift_is_none_for_tokens_as_they_should_be_and_grows_both_ways",
    ),
    Mutation(
        "an encoder that centres takes the population out",
        "models/identity_encoder.py",
        "return tokens if self.population is None else self.population(tokens)",
        "return tokens",
        "tests/unit/models/test_population_norm.py::test_an_encoder_that_centres_describes_and_then_takes_the_population_out",
    ),
)
