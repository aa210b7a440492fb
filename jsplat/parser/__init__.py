"""The face parser: BiSeNet, its training, prediction and checkpoints. The only room that knows flax."""

from jsplat.parser.any_size import predict_labels
from jsplat.parser.augment import AugmentConfig
from jsplat.parser.bisenet import Architecture
from jsplat.parser.checkpoint import load_parser, save_parser
from jsplat.parser.model import Parser, enlarged, new_parser
from jsplat.parser.predict import opinions, predict
from jsplat.parser.train import History, ParserConfig, TeacherConfig, train_parser
from jsplat.parser.trying import compile_training, try_training

__all__ = [
    "Architecture",
    "AugmentConfig",
    "History",
    "Parser",
    "ParserConfig",
    "TeacherConfig",
    "compile_training",
    "enlarged",
    "load_parser",
    "new_parser",
    "opinions",
    "predict",
    "predict_labels",
    "save_parser",
    "train_parser",
    "try_training",
]
