"""Public module: the two forms of a model manager, under the module name that existing projects import."""

from gen_worker.authoring.model_interface import ModelDownloader, ModelManagementInterface, ModelManager

__all__ = ["ModelDownloader", "ModelManagementInterface", "ModelManager"]
