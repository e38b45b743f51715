/* Layers and views of pictures that a task has drawn itself. */

function enlivenPicture(picture) {
  const svg = picture.querySelector("svg");
  for (const box of picture.querySelectorAll("[data-layer]"))
    box.addEventListener("change", () => {
      for (const layer of svg.querySelectorAll(".layer-" + box.dataset.layer)) layer.classList.toggle("hidden", !box.checked);
    });
  for (const view of picture.querySelectorAll("[data-view]"))
    view.addEventListener("change", () => svg.setAttribute("viewBox", view.value));
}

for (const picture of document.querySelectorAll(".picture")) enlivenPicture(picture);
