// A word that is pointed at, or has the focus, lays its map over the photo.
for (const words of document.querySelectorAll(".words")) {
  const buttons = [...words.querySelectorAll("button")];
  const overlay = words.closest(".card").querySelector(".overlay");
  const show = (button) => {
    overlay.style.backgroundImage = `url("${button.dataset.map}")`;
    overlay.classList.add("on");
  };
  const leave = () => {
    const focused = buttons.find((button) => button === document.activeElement);
    if (focused) show(focused);
    else overlay.classList.remove("on");
  };
  buttons.forEach((button, place) => {
    // one stop of the Tab key a caption; arrows go from word to word
    button.tabIndex = place ? -1 : 0;
    button.addEventListener("mouseenter", () => show(button));
    button.addEventListener("mouseleave", leave);
    button.addEventListener("focus", () => show(button));
    button.addEventListener("blur", leave);
    button.addEventListener("click", () => button.focus()); // Safari does not focus by itself
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && buttons[place + step];
      if (!next) return;
      event.preventDefault();
      button.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}
