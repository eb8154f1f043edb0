"""`/models`: what there is to segment with."""

from __future__ import annotations

from fastapi import APIRouter

from gigamask.errors import GigamaskError
from service.parts import PartsDep, RootPath
from service.schemas import BrokenModelView, ModelListView, ModelView, ProblemView, view_model

router = APIRouter(tags=["models"])


@router.get("/models", summary="The models that are here")
def list_models(parts: PartsDep, root_path: RootPath) -> ModelListView:
    """A folder dropped among the models is seen at the next call; one that is broken hides none of the others."""
    models, broken = [], []
    for name in parts.shelf.folders():
        try:
            models.append(view_model(parts.shelf.manifest(name), root_path))
        except GigamaskError as exc:
            broken.append(BrokenModelView(name=name, detail=exc.message))
    return ModelListView(models=models, broken=broken)


@router.get(
    "/models/{name}",
    summary="One model",
    responses={404: {"model": ProblemView, "description": "No such model."}},
)
def read_model(name: str, parts: PartsDep, root_path: RootPath) -> ModelView:
    """Its classes with ids, names and colours; the size of its tiles; the pixel size that it was trained at."""
    return view_model(parts.shelf.manifest(name), root_path)
