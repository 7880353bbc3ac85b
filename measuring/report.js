for (const slider of document.querySelectorAll("[data-pair]"))
  slider.oninput = () => slider.previousElementSibling.style.setProperty("--at", slider.value + "%");
for (const grids of document.querySelectorAll("[data-grids]")) {
  const slider = grids.querySelector("input"), output = grids.querySelector("output");
  const pictures = [...grids.querySelectorAll("img")];
  slider.oninput = () => {
    pictures.forEach((picture, i) => picture.hidden = i != slider.value);
    output.textContent = pictures[slider.value].dataset.step;
  };
  slider.oninput();
}
