/* A wide table says that it goes on at its sides. */

for (const box of document.querySelectorAll(".scroll")) {
  const cue = () => {
    const left = box.scrollLeft > 2, right = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    box.classList.toggle("more-left", left);
    box.classList.toggle("more-right", right);
  };
  box.addEventListener("scroll", cue, { passive: true });
  new ResizeObserver(cue).observe(box);
}
