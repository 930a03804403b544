"""The name of each HTTP status, the same on every Python: `http.HTTPStatus` took RFC 9110's names only in 3.13."""

from http import HTTPStatus

PHRASES = {
    **{status.value: status.phrase for status in HTTPStatus},
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
