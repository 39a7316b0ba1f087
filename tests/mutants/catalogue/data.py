"""Training clips (paper 3.2 and 4.1)."""

from tests.mutants.mutation import Mutation

_CAPTIONS = "tests/unit/data/test_scenes.py::test_captions_name_sex_age_place_and_light_that_are_shown"
_MOTIONS = "tests/unit/data/test_scenes.py::test_motions_reach_the_scene"
_POOL = "tests/unit/data/test_pool_rows.py::"
_ANOTHER_PHOTO = _POOL + "test_the_reference_and_its_face_come_from_another_photo_where_there_is_one"
_ENCODED = "tests/unit/data/test_encoded_rows.py::"
_LATENTS = _ENCODED + "test_latents_are_those_of_the_rendered_row"
_ONE_PERSON = _POOL + "test_clip_reference_caption_and_shape_of_a_row_are_of_one_person"
_TEXT = _ENCODED + "test_text_is_of_the_rows_own_caption"
_PRECOMPUTE = "data/precompute.py"
_SCENES = "data/repose/scenes.py"

DATA = (
    Mutation(
        "the rendered reference is another view",
        _PRECOMPUTE,
        "drawn = render(layers, rigs, draw.reference,",
        "drawn = render(layers, rigs, draw.target,",
        _ANOTHER_PHOTO,
    ),
    Mutation(
        "a photo as reference is another than the clip's",
        _PRECOMPUTE,
        "    scene = draw.reference\n",
        "    scene = draw.target\n",
        _ANOTHER_PHOTO,
    ),
    Mutation(
        "the reference is no frame of the clip",
        _PRECOMPUTE,
        '"reference": tighten(reference, generator), "face": face}',
        '"reference": target.frames[:, 1], "face": face}',
        _ANOTHER_PHOTO,
    ),
    Mutation(
        "the reference is another view than the clip's",
        _PRECOMPUTE,
        '"reference": tighten(reference, generator), "face": face}',
        '"reference": target.frames[:, 0], "face": face}',
        _POOL + "test_the_reference_is_no_frame_of_the_clip",
    ),
    Mutation(
        "the face crop is the reference's",
        _PRECOMPUTE,
        '"reference": tighten(reference, generator), "face": face}',
        '"reference": reference, "face": frame_face}',
        _ANOTHER_PHOTO,
    ),
    Mutation(
        "the frame's face is the clip's",
        _PRECOMPUTE,
        'pictures |= {"frame_face": frame_face,',
        'pictures |= {"frame_face": face,',
        _ANOTHER_PHOTO,
    ),
    Mutation(
        "captions are of their clips",
        _PRECOMPUTE,
        "captions += draw.captions",
        "captions += draw.captions[1:] + draw.captions[:1]",
        _ONE_PERSON,
    ),
    Mutation(
        "shapes are of their clips",
        _PRECOMPUTE,
        "draw.identity.half()",
        "draw.identity.roll(1, 0).half()",
        _ONE_PERSON,
    ),
    Mutation(
        "references are of their clips' people",
        _PRECOMPUTE,
        '"reference": tighten(reference, generator), "face": face}',
        '"reference": reference.roll(1, 0), "face": face}',
        _ONE_PERSON,
    ),
    Mutation(
        "the reference latent is the reference's",
        _PRECOMPUTE,
        "signed(pool.reference[rows])",
        "signed(pool.clips[rows, 0])",
        _LATENTS,
    ),
    Mutation(
        "face tokens are the reference's",
        _PRECOMPUTE,
        "vision(signed(pool.face[rows]))",
        "vision(signed(pool.frame_face[rows]))",
        _LATENTS,
    ),
    Mutation(
        "encoded shapes are those of the rows",
        _PRECOMPUTE,
        "np.asarray(pool.identity))",
        "np.asarray(pool.identity)[::-1])",
        _LATENTS,
    ),
    Mutation(
        "latents of pools are normalised",
        _PRECOMPUTE,
        "return normalise_latents(vae, frame_latents(vae, pictures.bfloat16()).float())",
        "return frame_latents(vae, pictures.bfloat16()).float()",
        _LATENTS,
    ),
    Mutation(
        "some of a pool stays together",
        _PRECOMPUTE,
        "getattr(self, field.name)[index] for field",
        "getattr(self, field.name)[index.sort()[0] if field.name == 'text' else index] for field",
        _ENCODED + "test_rows_and_joined_pools_keep_what_belongs_together",
    ),
    Mutation(
        "tight references are grey beyond their edge",
        _PRECOMPUTE,
        "torch.where(inside[:, None], pictures, 0.5)",
        "torch.where(inside[:, None], pictures, 0.0)",
        "tests/unit/data/test_tighten.py::test_only_grey_beyond_a_rectangle",
    ),
    Mutation(
        "faces to be painted are of the clip's person",
        _PRECOMPUTE,
        "_neutral_face(layers, rigs, draw.target)}",
        "_neutral_face(layers, rigs, draw.target).roll(1, 0)}",
        _ONE_PERSON,
    ),
    Mutation(
        "encoded text is of the row's caption",
        _PRECOMPUTE,
        "pool.captions[rows], TEXT_LENGTH",
        "pool.captions[rows][::-1], TEXT_LENGTH",
        _TEXT,
    ),
    Mutation(
        "the null text is empty",
        _PRECOMPUTE,
        'encode_text(tokenizer, text_encoder, [""], TEXT_LENGTH)',
        'encode_text(tokenizer, text_encoder, ["a person"], TEXT_LENGTH)',
        _TEXT,
    ),
    Mutation(
        "the reference is drawn from the other photo",
        _SCENES,
        "reference = self._scene(second, other_texture,",
        "reference = self._scene(base, texture,",
        "tests/unit/data/test_scenes.py::test_the_reference_is_another_view_of_the_same_person",
    ),
    Mutation(
        "expressions reach the scene",
        _SCENES,
        "added[k, :, self.index[name]] = curve",
        "added[k, :, self.index[name]] = 0 * curve",
        _MOTIONS,
    ),
    Mutation(
        "turns reach the scene in their direction",
        _SCENES,
        "np.stack([performance.angles_deg for performance in performances])",
        "np.stack([-performance.angles_deg for performance in performances])",
        _MOTIONS,
    ),
    Mutation(
        "motions run forward",
        _SCENES,
        "np.stack([performance.angles_deg for performance in performances])",
        "np.stack([performance.angles_deg[::-1] for performance in performances])",
        _MOTIONS,
    ),
    Mutation(
        "captions say who",
        "data/captions.py",
        '1: ("A woman", "her"), 2: ("A man", "his")',
        '1: ("A man", "his"), 2: ("A woman", "her")',
        _CAPTIONS,
    ),
    Mutation(
        "captions say where and in which light",
        "data/captions.py",
        "(place, light) if clause",
        "(light,) if clause",
        _CAPTIONS,
    ),
    Mutation(
        "captions say what happens",
        "data/captions.py",
        "{' and '.join(actions)}",
        "{actions[0]}",
        "tests/unit/data/test_captions.py::test_sentences",
    ),
    Mutation(
        "the reader's crops are asked for their own shape",
        "data/face_views.py",
        "identity=scene.identity.float()",
        "identity=scene.identity.roll(1, 0).float()",
        "tests/unit/data/test_face_views.py::test_known_values_are_those_of_the_scene",
    ),
    Mutation(
        "poses of crops count their tilt",
        "data/face_views.py",
        "roll + tilt_deg(affine)",
        "roll - tilt_deg(affine)",
        "tests/unit/data/test_face_views.py::test_pose_is_that_of_the_head_in_the_crop",
    ),
    Mutation(
        "captions are of their own scenes",
        _SCENES,
        "performance.phrases, places[k], words[k])",
        "performance.phrases, places[k - 1], words[k])",
        _CAPTIONS,
    ),
    Mutation(
        "phrases about the camera count the photo's pose",
        _SCENES,
        "perform(rng, frames).seen_from(self.pose_deg[index])",
        "perform(rng, frames)",
        "tests/unit/data/test_scenes.py::test_people_face_the_side_that_is_said_whatever_the_photos_pose",
    ),
    Mutation(
        "a photo's pose is taken off, not added",
        "data/repose/programs.py",
        "angles[:, axes] -= pose_deg[axes]",
        "angles[:, axes] += pose_deg[axes]",
        "tests/unit/data/test_programs.py::test_phrases_about_the_camera_hold_whatever_the_photos_pose",
    ),
    Mutation(
        "other wordings say whose head it is",
        "data/captions.py",
        "their = _SUBJECT[sex][1]",
        "their = _SUBJECT[2][1]",
        "tests/unit/data/test_captions.py::test_people_are_of_the_sex_and_age_asked_for_in_every_wording",
    ),
    Mutation(
        "a third of the captions is plain",
        "data/captions.py",
        "_PLAIN_SHARE = 0.35",
        "_PLAIN_SHARE = 0.2",
        "tests/unit/data/test_captions.py::test_about_a_third_is_plain",
    ),
    Mutation(
        "what lies beyond an edge is mirrored",
        "data/repose/prepare.py",
        "cv2.BORDER_REFLECT",
        "cv2.BORDER_REPLICATE",
        "tests/unit/data/test_prepare.py::test_beyond_the_edge_the_photo_is_mirrored",
    ),
    Mutation(
        "photos with too little around the face are left out",
        "data/repose/prepare.py",
        "> MAX_OUTSIDE:",
        "> 1:",
        "tests/unit/data/test_prepare.py::test_a_photo_with_too_little_around_the_face_is_left_out",
    ),
    Mutation(
        "references are grey beyond the edge of the photo",
        "conditioning/identity.py",
        "_BEYOND = 0.0",
        "_BEYOND = -1.0",
        "tests/unit/conditioning/test_identity.py::test_built_in_model_gets_the_pictures_it_was_trained_on",
    ),
    Mutation(
        "the lower edge of a photo is an edge",
        "face/align.py",
        " | (y > photo_size[0])",
        "",
        "tests/unit/face/test_align.py::test_nothing_of_a_frame_within_the_photo_is_beyond_its_edge",
    ),
)
