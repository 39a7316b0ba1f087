"""The mutations, by floor of the package."""

from tests.mutants.catalogue.clips import CLIPS
from tests.mutants.catalogue.data import DATA
from tests.mutants.catalogue.evaluation import EVALUATION
from tests.mutants.catalogue.face_and_geometry import FACE, GEOMETRY
from tests.mutants.catalogue.generation import GENERATION
from tests.mutants.catalogue.identity_models import IDENTITY_MODELS
from tests.mutants.catalogue.pipelines import CONDITIONING, PIPELINES
from tests.mutants.catalogue.serving import SERVING
from tests.mutants.catalogue.study import STUDY
from tests.mutants.catalogue.training import TRAINING
from tests.mutants.catalogue.video_models import VIDEO_MODELS

MUTATIONS = (
    *GEOMETRY,
    *FACE,
    *IDENTITY_MODELS,
    *VIDEO_MODELS,
    *CONDITIONING,
    *DATA,
    *CLIPS,
    *PIPELINES,
    *GENERATION,
    *EVALUATION,
    *SERVING,
    *STUDY,
    *TRAINING,
)
